"""Tiny stand-ins of torchvision's data sets, in the file formats of the real ones, and a server on this machine to fetch them
from. The images lie class by class, so that they are in the same order as image folders of them."""

import contextlib
import gzip
import hashlib
import io
import json
import pickle
import struct
import tarfile
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
from PIL import Image
from scipy.io import savemat
from torchvision import datasets

CLASSES = ("apple", "bear", "cup", "dog")
TRAIN, VAL, TEST = (6, 6, 6, 6), (2, 2, 2, 2), (3, 3, 3, 3)  # images of each class
UNEVEN = (3, 4, 2, 3)


def md5(path):
    return hashlib.md5(path.read_bytes()).hexdigest()


def tar(path, files):
    """A .tar.gz of these contents by name."""
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return md5(path)


def pixels(number, side, channels, seed):
    """[number, side, side, channels] uint8, whose colour tells nothing: labels are compared, not learnt."""
    return np.random.default_rng(seed).integers(0, 256, (number, side, side, channels), dtype=np.uint8)


def labels_of(counts):
    return [label for label, count in enumerate(counts) for _ in range(count)]


def jpeg(array):
    """(the file, what is in it)."""
    file = io.BytesIO()
    Image.fromarray(array).save(file, "JPEG", quality=90)
    return file.getvalue(), np.asarray(Image.open(io.BytesIO(file.getvalue())))


def drawn_jpegs(counts, seed):
    made = [jpeg(array) for array in pixels(sum(counts), 32, 3, seed)]
    return [file for file, _ in made], [array for _, array in made], labels_of(counts)


def fashion_mnist(folder):
    resources, truth = [], {}
    for split, word, counts, seed in (("train", "train", TRAIN, 0), ("test", "t10k", TEST, 1)):
        images, labels = pixels(sum(counts), 28, 1, seed)[..., 0], labels_of(counts)
        content = {
            f"{word}-images-idx3-ubyte.gz": struct.pack(">IIII", 0x803, *images.shape) + images.tobytes(),
            f"{word}-labels-idx1-ubyte.gz": struct.pack(">II", 0x801, len(labels)) + bytes(labels),
        }
        for name, raw in content.items():
            (folder / name).write_bytes(gzip.compress(raw))
            resources.append((name, md5(folder / name)))
        truth[split] = (list(images), labels)
    return truth, lambda url: {"mirrors": [url], "resources": resources}


def _cifar(folder, archive, base, batches, key, meta):
    files, lists, truth = {}, {}, {}
    for split, counts, seed in (("train", TRAIN, 0), ("test", TEST, 1)):
        images, labels = pixels(sum(counts), 32, 3, seed), labels_of(counts)
        rows = images.transpose(0, 3, 1, 2).reshape(len(labels), -1)  # red, then green, then blue, row by row
        cuts = np.array_split(np.arange(len(labels)), len(batches[split]))
        for name, cut in zip(batches[split], cuts, strict=True):
            files[name] = pickle.dumps({"data": rows[cut], key: [labels[index] for index in cut]})
        lists[split] = [[name, hashlib.md5(files[name]).hexdigest()] for name in batches[split]]
        truth[split] = (list(images), labels)
    files[meta["filename"]] = pickle.dumps({meta["key"]: list(CLASSES)})
    digest = tar(folder / archive, {f"{base}/{name}": content for name, content in files.items()})
    meta = meta | {"md5": hashlib.md5(files[meta["filename"]]).hexdigest()}
    facts = {"tgz_md5": digest, "train_list": lists["train"], "test_list": lists["test"], "meta": meta}
    return truth, lambda url: facts | {"url": url + archive}


def cifar10(folder):
    batches = {"train": [f"data_batch_{number}" for number in range(1, 6)], "test": ["test_batch"]}
    meta = {"filename": "batches.meta", "key": "label_names"}
    return _cifar(folder, "cifar-10-python.tar.gz", "cifar-10-batches-py", batches, "labels", meta)


def cifar100(folder):
    meta = {"filename": "meta", "key": "fine_label_names"}
    batches = {"train": ["train"], "test": ["test"]}
    return _cifar(folder, "cifar-100-python.tar.gz", "cifar-100-python", batches, "fine_labels", meta)


def stl10(folder):
    files, truth = {"class_names.txt": "\n".join(CLASSES).encode(), "unlabeled_X.bin": bytes(3 * 96 * 96)}, {}
    for split, counts, seed in (("train", TRAIN, 0), ("test", TEST, 1)):
        images, labels = pixels(sum(counts), 96, 3, seed), labels_of(counts)
        files[f"{split}_X.bin"] = images.transpose(0, 3, 2, 1).tobytes()  # channels, then column by column
        files[f"{split}_y.bin"] = bytes(label + 1 for label in labels)
        truth[split] = (list(images), labels)
    known = {name: hashlib.md5(content).hexdigest() for name, content in files.items()}
    digest = tar(folder / "stl10_binary.tar.gz", {f"stl10_binary/{name}": content for name, content in files.items()})
    lists = {
        "train_list": [[name, known[name]] for name in ("train_X.bin", "train_y.bin", "unlabeled_X.bin")],
        "test_list": [[name, known[name]] for name in ("test_X.bin", "test_y.bin")],
    }
    return truth, lambda url: lists | {"tgz_md5": digest, "url": f"{url}stl10_binary.tar.gz"}


def food101(folder):
    files, truth = {}, {}
    for split, counts, seed in (("train", TRAIN, 0), ("test", TEST, 1)):
        jpegs, images, labels = drawn_jpegs(counts, seed)
        names = [f"{CLASSES[label]}/{seed}{number:03d}" for number, label in enumerate(labels)]
        files |= {f"food-101/images/{name}.jpg": content for name, content in zip(names, jpegs, strict=True)}
        listed = {word: [name for name in names if name.startswith(f"{word}/")] for word in CLASSES}
        files[f"food-101/meta/{split}.json"] = json.dumps(listed).encode()
        truth[split] = (images, labels)
    digest = tar(folder / "food-101.tar.gz", files)
    return truth, lambda url: {"_URL": f"{url}food-101.tar.gz", "_MD5": digest}


def flowers102(folder):
    """Its images are numbered from 1 on without regard to split and class, and so are its classes."""
    files, truth, of_image, ids, order = {}, {}, {}, {}, list(np.random.default_rng(9).permutation(np.arange(1, 45)))
    for split, word, counts in (("train", "trnid", TRAIN), ("val", "valid", VAL), ("test", "tstid", UNEVEN)):
        jpegs, images, labels = drawn_jpegs(counts, len(split))
        ids[word] = [int(order.pop()) for _ in labels]
        files |= {f"jpg/image_{number:05d}.jpg": content for number, content in zip(ids[word], jpegs, strict=True)}
        of_image |= dict(zip(ids[word], labels, strict=True))
        truth[split] = (images, labels)
    digest = tar(folder / "102flowers.tgz", files)
    savemat(folder / "imagelabels.mat", {"labels": np.array([[of_image[number] + 1 for number in sorted(of_image)]], np.uint8)})
    savemat(folder / "setid.mat", {word: np.array([numbers], np.uint16) for word, numbers in ids.items()})
    known = {"image": ("102flowers.tgz", digest)}
    known |= {word: (name, md5(folder / name)) for word, name in (("label", "imagelabels.mat"), ("setid", "setid.mat"))}
    return truth, lambda url: {"_download_url_prefix": url, "_file_dict": known}


def pets(folder):
    files, lists, truth = {}, {}, {}
    for split, counts, seed in (("trainval", TRAIN, 0), ("test", UNEVEN, 1)):
        jpegs, images, labels = drawn_jpegs(counts, seed)
        names = [f"{CLASSES[label]}_{seed}{number}" for number, label in enumerate(labels)]
        files |= {f"images/{name}.jpg": content for name, content in zip(names, jpegs, strict=True)}
        rows = [f"{name} {label + 1} {1 + label % 2} {1 + label // 2}\n" for name, label in zip(names, labels, strict=True)]
        lists[f"annotations/{split}.txt"] = "".join(rows).encode()
        truth[split] = (images, labels)
    digests = {name: tar(folder / name, part) for name, part in (("images.tar.gz", files), ("annotations.tar.gz", lists))}
    return truth, lambda url: {"_RESOURCES": tuple((url + name, digest) for name, digest in digests.items())}


MAKERS = {
    "FashionMNIST": fashion_mnist, "CIFAR10": cifar10, "CIFAR100": cifar100, "STL10": stl10, "Food101": food101,
    "Flowers102": flowers102, "OxfordIIITPet": pets,
}  # fmt: skip
NOWHERE = "http://127.0.0.1:9/"  # nobody listens


class Hosted:
    """Stand-ins of all sets, on a server on this machine. `log`: names of files that were sent; `cut`: bytes of each that are
    sent before the connection is lost."""

    def __init__(self, folder):
        self.folder, self.log, self.cut, self.truth, self._facts = folder, [], None, {}, {}
        for name, make in MAKERS.items():
            (folder / name).mkdir()
            self.truth[name], self._facts[name] = make(folder / name)
        host = self

        class Handler(SimpleHTTPRequestHandler):
            def __init__(self, *given):
                super().__init__(*given, directory=str(folder))

            def log_message(self, *_):
                pass

            def copyfile(self, source, outputfile):
                if self.headers.get("Method") != "HEAD":  # torchvision asks first whether it is sent elsewhere
                    host.log.append(self.path.rsplit("/", 1)[-1])
                with contextlib.suppress(OSError):
                    outputfile.write(source.read(-1 if host.cut is None else host.cut))

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def patch(self, monkeypatch, address=None):
        """torchvision takes the sets to be these, on this server or at another address."""
        own = f"http://127.0.0.1:{self.server.server_address[1]}/"
        for name, facts in self._facts.items():
            for attribute, value in facts(address or f"{own}{name}/").items():
                monkeypatch.setattr(getattr(datasets, name), attribute, value)
