"""Experiments: the same stream learnt by several strategies, compared.

The data's way, the same for every pipeline. A preset, a file and options make the configuration, and an `Experiment`
makes its `Case`s of that: one training each, a method with a seed. `runner` prepares what a case needs, writes the
case into a folder of its own, and has torchrun start its ranks. These (`rank`) train it with the pipeline's training,
write a checkpoint at the end of every section, and in the end the figures. `runner` takes them up into the `Results`:
one JSON file, whole after every case. Table and plots are made from that file's content alone, pictures of specimens
excepted.

What is done stands in the results, what is under way in the checkpoints of its case. So an experiment that was killed
goes on where it was; a rank that was killed is started again by torchrun.
A pipeline brings an `Experiment`, a `Case` with its training, its figures and its plots; nothing else.
"""
