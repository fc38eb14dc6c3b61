"""Image classification, class-incremental: classes come in tasks, one after the other, and one output tells all apart.

image_folder    the layout on disk: train/<class>/*, val/<class>/*
tasks           which classes come when
decoding, loader    files to uint8 images, in worker processes
epochs          a task as a stream of samples; its sections are epochs
pipeline        what strategies and the buffer know of images
classifier      the network, with the augmentation that every training pass makes anew
schedule        the learning rate, which starts again with each task
evaluation, metrics    accuracy per task, and what follows from it
training        one strategy over all tasks, on all ranks
"""
