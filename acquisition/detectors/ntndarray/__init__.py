"""EPICS areaDetector: frames as NTNDArray over PvAccess.

The objects that EPICS brings are flattened into messages (`messages`): a header, and the pixels as they came,
compressed or not. An NTNDArray knows of no series: the settings say how one begins and ends, and `series` follows that.
"""
