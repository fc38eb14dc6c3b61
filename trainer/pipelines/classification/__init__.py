"""Image classification, class-incremental: classes come in tasks, one after the other, and one output tells all apart.

The folder, its tasks and the decoding of files are in `acquisition/classification`, the network in
`trainer/models/classifier`.

loading         what all loaders do
loader          files to uint8 images, in worker processes
dali_loader     the same on a GPU, with NVIDIA DALI
epochs          a task as a stream of samples; its sections are epochs
pipeline        what strategies and the buffer know of images
schedule        the learning rate, which starts again with each task
evaluation      accuracy per task
record          what has come of a training so far
training        one strategy over all tasks, on all ranks
"""
