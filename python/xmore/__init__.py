"""Zero-shot image classification with retrieved captions: models, memories, answers, without torch.

>>> import xmore
>>> model = xmore.Model("lite")
>>> model.encode_image(["a.jpg", "b.jpg"]).shape
(2, 512)
>>> memory = xmore.Memory("memory")
>>> classify = xmore.Classifier(model, ["cat", "dog"], memory)
>>> classify("a.jpg").label
'cat'

An image is a path, bytes, a binary file object, a PIL image, or a uint8 array ``[height, width, 3]`` of numpy or of any library that has
``__array_interface__`` or ``__dlpack__``. Only numpy is required; pandas, pyarrow and tqdm are used where they are installed.
"""

from xmore._errors import ImageError, ModelMismatch, SkippedImages, XmoreError, XmoreWarning
from xmore._native import __version__
from xmore.classifier import Classifier
from xmore.evaluation import Evaluation, evaluate
from xmore.memory import Embeddings, Hit, Memory
from xmore.model import Model
from xmore.pipelines import pipeline
from xmore.prediction import Caption, Prediction, Predictions

__all__ = [
    "Caption",
    "Classifier",
    "Embeddings",
    "Evaluation",
    "Hit",
    "ImageError",
    "Memory",
    "Model",
    "ModelMismatch",
    "Prediction",
    "Predictions",
    "SkippedImages",
    "XmoreError",
    "XmoreWarning",
    "__version__",
    "evaluate",
    "pipeline",
]
