"""Discriminator-semantic exploration (Shi et al. 2022): the rows of its tables."""

from facesr_lib.evaluation import measures
from facesr_lib.evaluation.tables import BASELINES, PULSE, PaperTable, Row

DSE = Row("dse", "dse")
WITHOUT_LS = Row("dse without Ls", "dse", {"lambda_s": 0.0})
ESRGAN = Row("ESRGAN", "esrgan", {"weights": "esrgan-faces"})
MGANPRIOR = Row("mGANprior without its perceptual term", "mganprior", {"perceptual": None, "steps": 500})

TABLES = {
    "dse-1": PaperTable("dse against the others", {8: 8, 16: 16}, (*BASELINES, ESRGAN, MGANPRIOR, PULSE, DSE)),
    "dse-2": PaperTable("what the semantic loss adds", {4: 16, 8: 32, 16: 64}, (WITHOUT_LS, DSE)),
    "dse-fig4": PaperTable("time per face", {16: 16}, (MGANPRIOR, PULSE, DSE), measures.seconds),
}
