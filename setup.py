"""Tells setuptools where each import package lies; everything else is in setup.cfg.

setup.cfg can name one root, and here are four: a folder per component, each holding one import
package, so that nothing generic ("common", "worker") reaches a user's site-packages.
"""

from setuptools import find_packages, setup

FOLDERS = {
    "headway": "common",
    "headway_broker": "broker",
    "headway_worker": "worker",
    "headway_gateway": "gateway",
}

setup(
    package_dir={package: f"{folder}/{package}" for package, folder in FOLDERS.items()},
    packages=[
        found
        for package, folder in FOLDERS.items()
        for found in find_packages(folder, include=[package, f"{package}.*"])
    ],
)
