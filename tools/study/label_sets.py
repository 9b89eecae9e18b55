"""Lists of labels that the memory knows well, badly or not at all."""
import importlib.util
import json
import random
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
IMAGENETTE = ["English springer", "French horn", "cassette player", "chain saw", "church", "garbage truck", "gas pump", "golf ball", "parachute", "tench"]
SPELLING = {"English Springer Spaniel": "English springer", "chainsaw": "chain saw"}     # ImageNet's names, as imagenette160's folders have them
CIFAR10 = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
CIFAR100 = """apple, aquarium fish, baby, bear, beaver, bed, bee, beetle, bicycle, bottle, bowl, boy, bridge, bus, butterfly, camel, can, castle,
caterpillar, cattle, chair, chimpanzee, clock, cloud, cockroach, couch, crab, crocodile, cup, dinosaur, dolphin, elephant, flatfish, forest, fox, girl,
hamster, house, kangaroo, keyboard, lamp, lawn mower, leopard, lion, lizard, lobster, man, maple tree, motorcycle, mountain, mouse, mushroom, oak tree,
orange, orchid, otter, palm tree, pear, pickup truck, pine tree, plain, plate, poppy, porcupine, possum, rabbit, raccoon, ray, road, rocket, rose, sea,
seal, shark, shrew, skunk, skyscraper, snail, snake, spider, squirrel, streetcar, sunflower, sweet pepper, table, tank, telephone, television, tiger,
tractor, train, trout, tulip, turtle, wardrobe, whale, willow tree, wolf, woman, worm"""
FLOWERS5 = ["daisy", "dandelion", "rose", "sunflower", "tulip"]
ACTIONS = ["dog running", "person riding a bicycle", "child playing", "person climbing a rock", "people at the beach", "person skiing in snow",
           "football game", "person swimming", "group of people on a street", "person skateboarding"]

# Article types whose name is one plain word.
PLAIN = ["Backpacks", "Belts", "Caps", "Dresses", "Earrings", "Flats", "Handbags", "Heels", "Jackets", "Jeans", "Kurtas", "Sandals", "Sarees", "Shirts", "Socks",
         "Sunglasses", "Ties", "Trousers", "Wallets", "Watches"]
# Last words of ImageNet names that stand in Flickr8k's captions while the names themselves do not: a memory half knows such labels.
LAST_WORDS = """ball bear beach bird boat bridge cap car cart cat chair coat dog fence fish fox gate glass hat horse house jacket jersey lion machine mask monkey pole rack rope
shirt shop shore skirt snake spider stick suit table telephone tower train trailer trunk truck vest wagon wall wheel wolf""".split()


def imagenet():
    lines = (REPOSITORY / "crates/xmore-eval/src/registry/imagenet_classes.txt").read_text(encoding="utf-8").splitlines()
    names = [line.split(" ", 2)[2] for line in lines if not line.startswith("#")]
    return [SPELLING.get(name, name) for name in names]


def clip_benchmark():
    """The benchmark's class names; its package is read, not imported (it would want torch)."""
    folder = importlib.util.find_spec("clip_benchmark").submodule_search_locations[0]
    return json.loads((Path(folder) / "datasets/en_classnames.json").read_text(encoding="utf-8"))


def label_sets(own):
    """Further lists; `own` are the labels of each set itself."""
    benchmark, sets = clip_benchmark(), {"in1000": imagenet()}
    others = [name for name in sets["in1000"] if name not in IMAGENETTE]
    for count, first, seeds in ((200, 0, 4), (50, 10, 2)):
        for i in range(seeds):
            rng = random.Random(first + i)
            names = rng.sample(others, count - 10) + IMAGENETTE
            rng.shuffle(names)
            sets[f"in{count}_{i}"] = names
    for i in range(3):
        sets[f"in100_{i}"] = IMAGENETTE + random.Random(200 + i).sample(others, 90)
    last_known = [name for name in others if len(name.split()) > 1 and name.split()[-1].lower() in LAST_WORDS]
    for count in (30, 50):
        sets[f"heads{count}"] = IMAGENETTE + random.Random(count).sample(last_known, count - 10)
    sets["cifar110"] = CIFAR10 + CIFAR100.replace("\n", " ").split(", ")
    sets["flowers5+"] = FLOWERS5 + [n for n in benchmark["flowers"] if not any(f in n.lower() for f in FLOWERS5)]
    for name in ("flowers", "pets", "caltech101", "eurosat", "gtsrb", "country211", "fer2013"):
        sets[name] = benchmark[name]
    sets["fashion20"] = [name for name in own["fashion-queries"] if name in PLAIN]
    sets["tiny50"] = own["tiny200"][::4]
    return {**sets, "dog or person": ["dog", "person"], "actions": ACTIONS}
