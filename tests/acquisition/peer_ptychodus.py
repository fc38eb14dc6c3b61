"""Runs in the environment of `ptychodus`: writes a scan as that package writes it.

peer_ptychodus.py ARRAYS.npz FOLDER
"""

import sys
from pathlib import Path

import numpy as np
from ptychodus.api.assemble import AssembledDiffractionData
from ptychodus.api.geometry import PixelGeometry
from ptychodus.api.io import save_diffraction_data, save_product
from ptychodus.api.object import Object, ObjectCenter
from ptychodus.api.probe import ProbeSequence
from ptychodus.api.probe_positions import ProbePosition, ProbePositionSequence
from ptychodus.api.product import Product, ProductMetadata


def main(source, folder):
    scan = np.load(source)
    height, width = scan["pixel_m"].tolist()
    data = AssembledDiffractionData(scan["order"], scan["frames"], PixelGeometry(width, height), scan["bad_pixels"])
    save_diffraction_data(Path(folder) / "diffraction.h5", data)
    height, width = scan["object_pixel_m"].tolist()
    pixel = PixelGeometry(width, height)
    product = Product(
        metadata=ProductMetadata(
            name="scan",
            comments="",
            detector_distance_m=scan["distance_m"].item(),
            photon_energy_eV=scan["energy_eV"].item(),
            probe_photon_count=1e5,
            exposure_time_s=0.1,
            mass_attenuation_m2_per_kg=0.0,
            tomography_angle_deg=31.0,
        ),
        probe_positions=ProbePositionSequence(
            [ProbePosition(index, x, y) for index, (y, x) in enumerate(scan["positions_m"].tolist())]
        ),
        probes=ProbeSequence(array=scan["probe"][np.newaxis], opr_weights=None, pixel_geometry=pixel),
        object_=Object(array=np.ones((1, 80, 90), complex), pixel_geometry=pixel, center=ObjectCenter(0.0, 0.0)),
        losses=[],
    )
    save_product(Path(folder) / "product.h5", product)


main(*sys.argv[1:])
