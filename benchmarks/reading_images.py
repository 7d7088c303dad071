"""What reading images costs beside nilearn's NiftiMasker: CPU seconds, wall seconds, peak memory.

Images are made from nilearn's template (2 mm, int16, skull-stripped, compressed). Each reader runs
in a process of its own, one numerical thread; ``peak_mib`` is the most memory that process had,
210 MiB of it imports.
"""
from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path


def make(folder: Path, n: int) -> None:
    """Images of n people: the template times smooth noise."""
    import nibabel as nib
    import numpy as np
    from nilearn.datasets import load_mni152_brain_mask, load_mni152_template
    from scipy.ndimage import gaussian_filter

    template = load_mni152_template(resolution=2)
    brain = np.asarray(load_mni152_brain_mask(resolution=2).dataobj) > 0
    data = np.asarray(template.dataobj, dtype=np.float32) * brain
    for i in range(n):
        noise = np.random.default_rng(i).standard_normal(data.shape, dtype=np.float32)
        values = 1000 * data * (1 + 0.8 * gaussian_filter(noise, 1.5))
        img = nib.Nifti1Image(values.astype(np.int16), template.affine)
        img.set_sform(template.affine, 4)
        nib.save(img, folder / f"{i:04d}.nii.gz")


def ours(files: list[str], resolution: int, fwhm: float, threads: int) -> dict[str, float]:
    """A table on disk, then the same again from the cache."""
    from normfuse.volumes import VolumePlan, read_images
    from normfuse.volumes.checks import prepare

    plan = VolumePlan("brain", resolution=resolution, smoothing=fwhm)
    prepare(plan)
    paths = dict(zip(map(str, range(len(files))), files))
    with tempfile.TemporaryDirectory() as cache:
        found = timed(lambda: read_images(paths, plan, cache=cache, threads=threads))
        again = timed(lambda: read_images(paths, plan, cache=cache, threads=threads))
    return {**found, "cpu_again": again["cpu"]}


def nilearn(files: list[str], resolution: int, fwhm: float, threads: int) -> dict[str, float]:
    """An array in memory."""
    from nilearn.datasets import load_mni152_brain_mask
    from nilearn.maskers import NiftiMasker

    masker = NiftiMasker(load_mni152_brain_mask(resolution=resolution),
                         smoothing_fwhm=fwhm or None, standardize=None).fit()
    return timed(lambda: masker.transform(files))


def timed(run) -> dict[str, float]:
    cpu, wall = time.process_time(), time.perf_counter()
    run()
    return {"cpu": round(time.process_time() - cpu, 2),
            "wall": round(time.perf_counter() - wall, 2),
            "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=100)
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        warnings.simplefilter("ignore")
        reader, resolution, fwhm, threads = arguments.one
        files = sorted(map(str, arguments.folder.glob("*.nii.gz")))[:arguments.n]
        run = {"ours": ours, "nilearn": nilearn}[reader]
        print(json.dumps(run(files, int(resolution), float(fwhm), int(threads))))
        return
    report: dict[str, object] = {"n": arguments.n, "image": "99 x 117 x 95, 2 mm, int16, gzip"}
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder), arguments.n)
        for case in (("ours", 2, 0, 1), ("nilearn", 2, 0, 1), ("ours", 2, 4, 1), ("ours", 2, 4, 2),
                     ("nilearn", 2, 4, 1), ("ours", 4, 8, 1), ("nilearn", 4, 8, 1)):
            words = list(map(str, case))
            done = subprocess.run([sys.executable, __file__, "--folder", folder, "--n",
                                   str(arguments.n), "--one", *words], check=True,
                                  capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
            name = "{}, {} mm, FWHM {} mm, threads {}".format(*words)
            report[name] = json.loads(done.stdout)
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
