"""RF-DETR: tiles, fine-tuning, scores and export of the detector."""
