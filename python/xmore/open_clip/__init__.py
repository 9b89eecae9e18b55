"""The calls of the package ``open_clip`` over numpy: code that was written for it runs with its import changed, without torch.

>>> from xmore import open_clip
>>> model, _, preprocess = open_clip.create_model_and_transforms("ViT-B-32", pretrained="laion2b_s34b_b79k")
>>> tokenizer = open_clip.get_tokenizer("ViT-B-32")
>>> image_features = model.encode_image(preprocess("photo.jpg").unsqueeze(0))
>>> text_features = model.encode_text(tokenizer(["a diagram", "a dog", "a cat"]))
>>> (model.logit_scale.exp() * image_features @ text_features.T).softmax(dim=-1)

What is different: features are unit vectors whether ``normalize`` is given or not; models do not train, so the transform for training is that
for inference; arrays are :class:`~xmore.open_clip.tensor.Tensor`, numpy arrays with the methods of torch's tensors that such code uses. Code
that says ``torch.no_grad()`` and ``torch.autocast()`` takes them from :mod:`xmore.open_clip.torch`. A model that is given tensors of the real
torch answers with such.
"""

from xmore.open_clip.factory import (
    create_model,
    create_model_and_transforms,
    create_model_from_pretrained,
    get_tokenizer,
)
from xmore.open_clip.model import CLIP, Preprocess, Tokenizer
from xmore.open_clip.tensor import Tensor

__all__ = [
    "CLIP",
    "Preprocess",
    "Tensor",
    "Tokenizer",
    "create_model",
    "create_model_and_transforms",
    "create_model_from_pretrained",
    "get_tokenizer",
]
