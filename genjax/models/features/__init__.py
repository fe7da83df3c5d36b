"""Networks that turn images into features, of which metrics are made: Inception v3 of FID, VGG16 and AlexNet of LPIPS."""
