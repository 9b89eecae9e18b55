#!/usr/bin/env python3
"""Writes and executes notebook.ipynb: `pip install . nbformat nbclient ipykernel matplotlib scikit-image pandas pillow`, then run this."""

import pathlib
import tempfile

import nbformat
from nbclient import NotebookClient

HERE = pathlib.Path(__file__).parent

CELLS = [
    (
        "md",
        """# xmore in a notebook

Zero-shot classification of pictures, alone and with retrieved captions. Pictures: scikit-image's
([their licenses](https://github.com/scikit-image/scikit-image/blob/main/skimage/data/README.txt)). The model is
`lite`, which comes by way of pip; CLIP's own models go by their names, such as `ViT-B-16,openai`.
`examples/make_notebook.py` wrote and executed this.""",
    ),
    (
        "py",
        """import pathlib

import matplotlib.pyplot as plt
from PIL import Image
from skimage import data

import xmore

folder = pathlib.Path("pictures")
folder.mkdir()
pictures = {
    "astronaut": data.astronaut(), "cat": data.chelsea(), "coffee": data.coffee(), "rocket": data.rocket(),
    "retina": data.retina(), "galaxies": data.hubble_deep_field(),
}
for name, pixels in pictures.items():
    Image.fromarray(pixels).save(folder / f"{name}.jpg")

figure, axes = plt.subplots(1, len(pictures), figsize=(14, 3))
for axis, (name, pixels) in zip(axes, pictures.items(), strict=True):
    axis.imshow(pixels)
    axis.set_title(name)
    axis.axis("off")""",
    ),
    (
        "md",
        """## Without a memory

Labels are free text. An image is a path, a PIL image, an array, bytes.""",
    ),
    (
        "py",
        """model = xmore.Model("lite")
labels = ["a woman in a space suit", "a cat", "a cup of coffee", "a rocket", "the inside of an eye", "stars and galaxies"]
classify = xmore.Classifier(model, labels)
files = sorted(folder.glob("*.jpg"))
answers = classify.predict(files)
answers.to_pandas()[["label", "score", "image_confidence"]].assign(file=[file.name for file in files])""",
    ),
    (
        "py",
        """figure, axis = plt.subplots(figsize=(8, 4))
axis.imshow(answers.to_numpy(), cmap="viridis", vmin=0, vmax=1)
axis.set_xticks(range(len(labels)), labels, rotation=30, ha="right")
axis.set_yticks(range(len(files)), [file.stem for file in files])
axis.set_title("scores");""",
    ),
    (
        "md",
        """## With a memory of captioned pictures

A memory is a folder of image–caption pairs with their embeddings. Here each picture is cut in two: left halves, with
captions, are the memory; right halves are the query images.""",
    ),
    (
        "py",
        """captions = {
    "astronaut": "an astronaut in an orange suit smiles in front of a flag", "cat": "a ginger cat with green eyes looks at the camera",
    "coffee": "a cup of espresso with a spoon on a wooden table", "rocket": "a rocket stands on the launch pad at dusk",
    "retina": "blood vessels of a retina, seen by an eye doctor", "galaxies": "thousands of far galaxies in a black sky",
}
pairs, queries = folder / "pairs", folder / "queries"
pairs.mkdir(), queries.mkdir()
for name, pixels in pictures.items():
    middle = pixels.shape[1] // 2
    Image.fromarray(pixels[:, :middle]).save(pairs / f"{name}.jpg")
    (pairs / f"{name}.txt").write_text(captions[name])
    Image.fromarray(pixels[:, middle:]).save(queries / f"{name}.jpg")
memory = xmore.Memory.build(pairs, folder / "memory", model, progress=False)
[(hit.caption, round(hit.similarity, 3)) for hit in memory.search("something to drink", k=2)]""",
    ),
    (
        "py",
        """with_captions = xmore.Classifier(model, labels, memory, method="xmore", k=2)
with_captions(queries / "cat.jpg")""",
    ),
    ("py", """print(with_captions(queries / "coffee.jpg").explain())"""),
    (
        "md",
        """## Embeddings

Rows are unit vectors: their products are cosines. A memory's own are views of its file.""",
    ),
    (
        "py",
        """images = model.encode_image(sorted(queries.glob("*.jpg")))
texts = model.encode_text(labels)
print(images.shape, images.dtype, (images @ texts.T).round(2).tolist()[0])
rows = memory.image_embeddings
print(type(rows).__name__, len(rows))""",
    ),
]

if __name__ == "__main__":
    notebook = nbformat.v4.new_notebook()
    for number, (kind, text) in enumerate(CELLS):
        cell = nbformat.v4.new_markdown_cell(text) if kind == "md" else nbformat.v4.new_code_cell(text)
        cell["id"] = f"cell-{number}"
        notebook.cells.append(cell)
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(notebook, timeout=600, resources={"metadata": {"path": folder}}).execute()
    nbformat.write(notebook, HERE / "notebook.ipynb")
