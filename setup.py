from pathlib import Path

from setuptools import find_packages, setup

POLICIES = ["stable-baselines3>=2.6"]
VIDEO = ["av>=13", "pygame>=2.6"]
INTEROP = ["minari[hdf5]>=0.5.3", "onnx>=1.17", "onnxscript>=0.3"]
REPORT = ["plotly>=6"]
# Later releases of d3rlpy pin an older gymnasium.
BASELINES = ["d3rlpy==2.8.0", "stable-baselines3>=2.6", "sb3-contrib>=2.6"]
CLUSTER = ["ray>=2.40"]
TEST = [
    *("hypothesis>=6.100", "pytest>=8", "pytest-cov>=6", "pytest-xdist>=3.6", "setuptools>=70"),
    *("pandas>=2.2", "polars>=1.3", "onnxruntime>=1.20", "selenium>=4.20"),
    *(*POLICIES, *VIDEO, *INTEROP, *REPORT, *BASELINES, *CLUSTER),
]

setup(
    name="persim-lightning",
    version="0.1.0",
    description="Personalized simulators of many agents from one trajectory each: PerSim on Lightning",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    packages=[*find_packages(include=["persim_lightning", "persim_lightning.*"]), "persim_lightning.conf"],
    # The configurations lie at the top of the checkout, and in the installed package.
    package_dir={"persim_lightning.conf": "conf"},
    package_data={
        "persim_lightning": ["py.typed"],
        "persim_lightning.policies": ["trained/*/*"],
        "persim_lightning.conf": ["*.yaml", "*/*.yaml"],
        "persim_lightning.report": ["*.html", "*.css", "*.js"],
    },
    entry_points={"console_scripts": ["persim = persim_lightning.cli.main:main"]},
    python_requires=">=3.11",
    install_requires=[
        "torch>=2.6",
        "pytorch-lightning>=2.6.6,<3",
        "jsonargparse[signatures]>=4.40,<5",
        "tensorly>=0.9,<1",
        "torchmetrics>=1.6,<2",
        "wandb>=0.19",
        "gymnasium>=1.2,<2",
        "imageio>=2.34",
        "mujoco>=3.2",
        "numpy>=2",
        "pyarrow>=16",
        "pyyaml>=6",
        "scikit-learn>=1.5",
        "scipy>=1.13",
        "matplotlib>=3.9",
        "safetensors>=0.5",
        "filelock>=3.13",
        "joblib>=1.3",
        "rich>=13.7",
    ],
    extras_require={
        "policies": POLICIES,
        "video": VIDEO,
        "interop": INTEROP,
        "report": REPORT,
        "baselines": BASELINES,
        "cluster": CLUSTER,
        "test": TEST,
        "dev": [*TEST, "ruff>=0.9", "mypy>=1.14", "import-linter>=2.16"],
    },
)
