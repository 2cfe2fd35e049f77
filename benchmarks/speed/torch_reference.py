"""The same network and the same DELETE steps in PyTorch, for `step_time.py --torch`."""

from __future__ import annotations

import time

import numpy as np
import torch
import torch.nn.functional as F

from delete_jax.models import ResNet

torch.backends.cudnn.benchmark = True  # its fastest kernels, as who tunes it would ask for


class Block(torch.nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    def __init__(self, inputs: int, features: int, stride: int):
        super().__init__()
        self.conv1, self.bn1 = _conv(inputs, features, 3, stride), torch.nn.BatchNorm2d(features)
        self.conv2, self.bn2 = _conv(features, features, 3, 1), torch.nn.BatchNorm2d(features)
        self.shortcut = torch.nn.Sequential()
        if stride > 1 or inputs != features:
            self.shortcut = torch.nn.Sequential(_conv(inputs, features, 1, stride), torch.nn.BatchNorm2d(features))

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


def resnet(module: ResNet, channels: int) -> torch.nn.Module:
    """The PyTorch counterpart of a `delete_jax.models.ResNet`."""
    width = module.features[0]
    layers = [_conv(channels, width, 3, module.stem_stride), torch.nn.BatchNorm2d(width), torch.nn.ReLU()]
    for stage, (blocks, features) in enumerate(zip(module.stages, module.features, strict=True)):
        for block in range(blocks):
            layers.append(Block(width, features, 2 if stage and not block else 1))
            width = features
    head = [torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(width, module.num_classes)]
    return torch.nn.Sequential(*layers, *head)


class Unlearner:
    """DELETE on forget samples of one class: SGD 0.9, the teacher's logits computed once unless the batch is augmented."""

    def __init__(
        self, module, images: np.ndarray, forget: int, *, mean, std, augment: bool, half: bool, lr: float,
        compiled: bool = False,
    ):  # fmt: skip
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        layout = torch.channels_last if self.device == "cuda" else torch.contiguous_format
        build = lambda: resnet(module, images.shape[-1]).to(self.device, memory_format=layout)  # noqa: E731
        self.student, self.teacher = build(), build().eval()
        self.teacher.load_state_dict(self.student.state_dict())
        self.optimizer = torch.optim.SGD(self.student.parameters(), lr=lr, momentum=0.9)
        self.images = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).to(self.device)
        self.mean, self.std = (torch.tensor(v, device=self.device).view(1, -1, 1, 1) for v in (mean, std))
        self.erase = torch.arange(module.num_classes, device=self.device) == forget
        self.layout, self.augment, self.half = layout, augment, half
        self.student.train()
        with torch.no_grad():
            self.logits = torch.cat([self._run(self.teacher, self._normalize(part)) for part in self.images.split(512)])
        if compiled:
            self.student, self.teacher = torch.compile(self.student), torch.compile(self.teacher)

    def epoch(self, index: np.ndarray, weight: np.ndarray) -> float:
        """Runs the steps of `index` `[steps, batch]` (weights likewise); returns seconds."""
        rows = torch.from_numpy(index.astype(np.int64)).to(self.device)
        weights = torch.from_numpy(weight).to(self.device)
        self._wait()
        started = time.perf_counter()
        for row, counts in zip(rows, weights, strict=True):
            images = self.images[row]
            x = self._normalize(_augment(images) if self.augment else images)
            with torch.no_grad():
                logits = self._run(self.teacher, x) if self.augment else self.logits[row]
                target = F.softmax(logits.masked_fill(self.erase, -torch.inf), dim=1)
            answer = F.log_softmax(self._run(self.student, x), dim=1)
            losses = F.kl_div(answer, target, reduction="none").sum(1)
            loss = (losses * counts).sum() / counts.sum()
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
        self._wait()
        return time.perf_counter() - started

    def _run(self, network, x):
        with torch.autocast(self.device, torch.bfloat16, enabled=self.half):
            return network(x).float()

    def _normalize(self, images):
        return ((images.float() / 255 - self.mean) / self.std).contiguous(memory_format=self.layout)

    def _wait(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()


def _augment(images, padding: int = 4):
    """Random flips and shifts by up to `padding` pixels, one draw per sample, all on the device."""
    n, _, height, width = images.shape
    flip = torch.rand(n, device=images.device) < 0.5
    images = torch.where(flip.view(-1, 1, 1, 1), images.flip(3), images)
    padded = F.pad(images, (padding,) * 4)
    top, left = torch.randint(0, 2 * padding + 1, (2, n, 1, 1), device=images.device)
    rows = top + torch.arange(height, device=images.device).view(1, -1, 1)
    columns = left + torch.arange(width, device=images.device).view(1, 1, -1)
    samples = torch.arange(n, device=images.device).view(-1, 1, 1)
    return padded.permute(0, 2, 3, 1)[samples, rows, columns].permute(0, 3, 1, 2)


def _conv(inputs: int, features: int, size: int, stride: int) -> torch.nn.Conv2d:
    return torch.nn.Conv2d(inputs, features, size, stride, padding=size // 2, bias=False)
