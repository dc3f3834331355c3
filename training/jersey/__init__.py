"""ResNet: fine-tuning, scores and export of the number, role and kit-colour reader."""
