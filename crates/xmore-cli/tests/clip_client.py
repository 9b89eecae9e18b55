"""Asks a server with clip-retrieval's own Python client (2.45.0); prints what it got as JSON.

    python3 clip_client.py PACKAGES URL INDEX IMAGE

PACKAGES is a folder with the packages clip-retrieval and requests.
"""

import importlib.util
import json
import sys

packages, url, index, image = sys.argv[1:]
sys.path.insert(0, packages)

import requests  # noqa: E402

# The client alone: the package's own __init__ wants torch, faiss and img2dataset.
spec = importlib.util.spec_from_file_location("clip_client", f"{packages}/clip_retrieval/clip_client.py")
clip_client = importlib.util.module_from_spec(spec)
spec.loader.exec_module(clip_client)


def client(**options):
    return clip_client.ClipClient(url=f"{url}/knn-service", indice_name=index, num_images=4, **options)


texts = client(deduplicate=False).query(text="a dog")
print(
    json.dumps(
        {
            "indices": requests.get(f"{url}/indices-list", timeout=60).json(),
            "text": texts,
            "captions": client(deduplicate=False, modality=clip_client.Modality.TEXT).query(text="a dog"),
            # As it is by default: without duplicates.
            "image": client().query(image=image),
            "embedding": client(deduplicate=False).query(embedding_input=[1.0] + [0.0] * (int(sys.stdin.read()) - 1)),
            "metadata": requests.post(
                f"{url}/metadata", json={"indice_name": index, "ids": [hit["id"] for hit in texts]}, timeout=60
            ).json(),
            "url": client().query(image="http://127.0.0.1:9/a.jpg"),
        }
    )
)
