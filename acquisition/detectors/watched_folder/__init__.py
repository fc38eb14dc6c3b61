"""A folder that another program writes files with frames into, TIFF or NumPy, one frame or several in each.

A file counts when nothing has changed in it for a while and it can be read to its end. What is received is the file as
it is: such files are moved and cleared up by others.
"""
