"""Labelled images as a stream: a folder of them, its classes dealt to tasks, read and published in order."""
