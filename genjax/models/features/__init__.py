"""Networks whose features metrics read: Inception v3 of FID, VGG16 and AlexNet of LPIPS."""
