"""Names for several classes at once: the superclasses of CIFAR-100, and what a config calls a group."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from delete_jax.data.dataset import Dataset
from delete_jax.nearest import nearest

SUPERCLASSES: dict[str, dict[str, tuple[str, ...]]] = {
    "cifar100": {
        "aquatic_mammals": ("beaver", "dolphin", "otter", "seal", "whale"),
        "fish": ("aquarium_fish", "flatfish", "ray", "shark", "trout"),
        "flowers": ("orchid", "poppy", "rose", "sunflower", "tulip"),
        "food_containers": ("bottle", "bowl", "can", "cup", "plate"),
        "fruit_and_vegetables": ("apple", "mushroom", "orange", "pear", "sweet_pepper"),
        "household_electrical_devices": ("clock", "keyboard", "lamp", "telephone", "television"),
        "household_furniture": ("bed", "chair", "couch", "table", "wardrobe"),
        "insects": ("bee", "beetle", "butterfly", "caterpillar", "cockroach"),
        "large_carnivores": ("bear", "leopard", "lion", "tiger", "wolf"),
        "large_man-made_outdoor_things": ("bridge", "castle", "house", "road", "skyscraper"),
        "large_natural_outdoor_scenes": ("cloud", "forest", "mountain", "plain", "sea"),
        "large_omnivores_and_herbivores": ("camel", "cattle", "chimpanzee", "elephant", "kangaroo"),
        "medium_mammals": ("fox", "porcupine", "possum", "raccoon", "skunk"),
        "non-insect_invertebrates": ("crab", "lobster", "snail", "spider", "worm"),
        "people": ("baby", "boy", "girl", "man", "woman"),
        "reptiles": ("crocodile", "dinosaur", "lizard", "snake", "turtle"),
        "small_mammals": ("hamster", "mouse", "rabbit", "shrew", "squirrel"),
        "trees": ("maple_tree", "oak_tree", "palm_tree", "pine_tree", "willow_tree"),
        "vehicles_1": ("bicycle", "bus", "motorcycle", "pickup_truck", "train"),
        "vehicles_2": ("lawn_mower", "rocket", "streetcar", "tank", "tractor"),
    }
}
"""By the name of the dataset: its groups of classes, as the dataset's authors (Krizhevsky, 2009) give them."""


def ungrouped(
    classes: Iterable[int | str], dataset: Dataset, groups: Mapping[str, Sequence[int | str]]
) -> tuple[int | str, ...]:
    """The classes with the members of each group in its place.

    Args:
      classes: numbers and names of classes, and names of groups.
      dataset: whose classes they are.
      groups: by their names, beside those of `SUPERCLASSES`: numbers and names of classes.

    Raises:
      ValueError: a group is called like a class, or a name is neither.

    Examples:
      >>> from delete_jax import data
      >>> from delete_jax.data.groups import ungrouped
      >>> ungrouped(["even", 3], data.load("digits"), {"even": [0, 2, 4, 6, 8]})
      (0, 2, 4, 6, 8, 3)
    """
    known = {**SUPERCLASSES.get(dataset.name, {}), **groups}
    if both := [name for name in groups if name in dataset.class_names]:
        raise ValueError(f"a group is called {both[0]!r}, and so is a class: choose another name for the group")
    found: list[int | str] = []
    for class_ in classes:
        if class_ in known:
            found += known[str(class_)]
        elif known and isinstance(class_, str) and class_ not in dataset.class_names:
            raise ValueError(
                f"{class_!r} is neither a class nor a group{nearest(class_, [*known, *dataset.class_names])}: the groups are {', '.join(known)}"
            )
        else:
            found.append(class_)
    return tuple(found)
