"""SAM2: squares, tracklets, fine-tuning and scores of the window tracker."""
