"""StyleGAN2 in plain PyTorch (Karras et al. 2020, *Analyzing and Improving the Image Quality of StyleGAN*).

Parameter names are those of the official PyTorch release, so that its state dicts load as they are.
Shapes: N images, L synthesis layers, d dimensions of w, C channels, R the image's side.
"""

from facesr_lib.networks.stylegan2.checkpoints import load
from facesr_lib.networks.stylegan2.discriminator import Discriminator, minibatch_std
from facesr_lib.networks.stylegan2.fast import FastSynthesis
from facesr_lib.networks.stylegan2.generator import Generator, MappingNetwork, SynthesisLayer
from facesr_lib.networks.stylegan2.layers import blur, leaky_relu, upsample
