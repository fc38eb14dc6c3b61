"""Run by a Python that has ptychodus: says what it reads of a product and its diffraction file."""

import json
import sys
from pathlib import Path

import numpy as np
from ptychodus.api.io import load_diffraction_data, load_product

product = load_product(Path(sys.argv[1]) / "product.h5")
diffraction = load_diffraction_data(Path(sys.argv[1]) / "diffraction.h5")
geometry = product.object_.get_geometry()
places = [geometry.map_coordinates_probe_to_object(point) for point in product.probe_positions]


def whole(array):
    array = np.ascontiguousarray(array)
    return {"dtype": str(array.dtype), "shape": array.shape, "hex": array.tobytes().hex()}


said = {
    "name": product.metadata.name,
    "energy_eV": product.metadata.photon_energy_eV,
    "distance_m": product.metadata.detector_distance_m,
    "angle_deg": product.metadata.tomography_angle_deg,
    "photons": product.metadata.probe_photon_count,
    "indices": [int(point.index) for point in product.probe_positions],
    "object_px": [(float(place.y_px), float(place.x_px)) for place in places],
    "object": whole(product.object_.get_array()),
    "probe": whole(product.probes.get_array()),
    "patterns": whole(diffraction.get_patterns()),
    "pattern_indices": [int(index) for index in diffraction.get_indexes()],
    "bad_pixels": whole(diffraction.get_bad_pixels()),
    "detector_pixel_m": [diffraction.get_pixel_geometry().height_m, diffraction.get_pixel_geometry().width_m],
}
sys.stdout.write(json.dumps(said))
