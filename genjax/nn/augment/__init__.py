"""Random changes of pictures B H W C, differentiable with respect to the pictures, each by numbers of its own."""
