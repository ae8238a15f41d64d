"""Features of images as arrays: extracting, judging, adding to and classifying them."""
