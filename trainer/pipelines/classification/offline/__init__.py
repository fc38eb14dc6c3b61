"""Tasks learnt from a folder of images, epoch by epoch, and measured after each."""
