"""Identity, the papers' ID: how alike does a face recogniser find two faces, one number a pair, (N,).

The recogniser is dlib's ResNet (King 2017; 128 numbers), from the extra ``photos``. The crop is dlib's: a chip of 150²,
turned and scaled by 68 landmarks. These are sought in a fixed box, where FFHQ's framing puts the face, not where a
detector finds it: the numbers are the same to 0.002, and a detector misses 2 of 50 faces enlarged from 32 pixels and 14
of those from 16. The landmark model was trained on iBUG 300-W, whose terms exclude commercial use.

On the fifty held-out faces at 256², made 8× smaller and enlarged again, a face is 0.48 from itself (cosine 0.947);
strangers are 0.80 apart (0.856), some of them only 0.39. The cosines crowd near 1: set distances beside them.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from facesr_lib import images
from facesr_lib.devices import in_full
from facesr_lib.metrics import pretrained
from facesr_lib.metrics.per_image import prepared_pair

SIDE = 256
BOX = (46, 81, 201, 236)  # left, top, right, bottom: the median of dlib's detections in 300 FFHQ-framed faces of 256²
SHA256 = {
    "shape_predictor_68_face_landmarks.dat": "fbdc2cb80eb9aa7a758672cbfdda32ba6300efe9b6e6c7a299ff7e736b11b92f",
    "dlib_face_recognition_resnet_model_v1.dat": "55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30",
}


@in_full()
def identity(x: Tensor, y: Tensor) -> Tensor:
    """Cosine similarity of two faces' embeddings: 1 for equal faces, (N,).

    The faces (N, 3, H, H) are framed as FFHQ's, of any size, in [0, 1]; or embeddings, (N, 128). Errors as `psnr`,
    or if a face is not square or their numbers differ; a ``MetricUnavailable`` says that the extra ``photos`` is not
    installed, or holds other weights than the published.
    """
    return F.cosine_similarity(*_embedded_pair(x, y))


def identity_distance(x: Tensor, y: Tensor) -> Tensor:
    """Euclidean distance of two faces' embeddings: 0 for equal faces, (N,). Otherwise as `identity`.

    The network was trained to keep one person's pictures within 0.6.
    """
    a, b = _embedded_pair(x, y)
    return (a - b).norm(dim=1)


@in_full()
def embed_faces(x: Tensor) -> Tensor:
    """Embeddings of faces, (N, 3, H, H) → (N, 128); parameters and errors as `identity`.

    Faces are resized to 256² (MATLAB's bicubic) and rounded to 8 bits first.
    """
    if isinstance(x, Tensor) and x.shape[1:] == (128,):
        if not x.is_floating_point() or not x.isfinite().all():
            raise ValueError("embeddings are finite floating-point numbers; one of these is not.")
        return x
    prepared_pair(x, x)
    if x.shape[2] != x.shape[3]:
        raise ValueError(f"faces are square, framed as FFHQ's; got {x.shape[3]}×{x.shape[2]}.")
    landmarks, recogniser = _networks()  # told first where they are missing
    import dlib

    box = dlib.rectangle(*BOX)
    faces = images.to_uint8(images.resize(x.detach(), (SIDE, SIDE)))
    chips = [dlib.get_face_chip(face, landmarks(face, box), size=150, padding=0.25) for face in faces]
    codes = [list(recogniser.compute_face_descriptor(chip)) for chip in chips]
    return torch.tensor(codes, device=x.device).view(-1, 128)


def model_files() -> list[Path]:
    """The landmark model and the recogniser, as the extra brings them along."""
    install = "pip install 'facesr_lib[photos]'"
    return [
        pretrained.packaged("face_recognition_models", file, sha256, reader="dlib", install=install)
        for file, sha256 in SHA256.items()
    ]


@cache
def _networks() -> tuple[Any, Any]:
    landmarks, recogniser = map(str, model_files())
    import dlib

    return dlib.shape_predictor(landmarks), dlib.face_recognition_model_v1(recogniser)


def _embedded_pair(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    a, b = embed_faces(x), embed_faces(y)
    if a.shape != b.shape:
        raise ValueError(f"faces are compared in pairs; got {len(a)} and {len(b)}.")
    return a, b
