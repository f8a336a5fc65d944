"""Spaces for tests, and a sampler that suggests what it was told to."""

from __future__ import annotations

import optuna

from autoprune.study.space import Space
from autoprune.study.yaml_text import parse_yaml

optuna.logging.set_verbosity(optuna.logging.WARNING)

GROUPS = [("stem", 0), ("layer1.0.conv1", 0), ("layer2.0.conv1", 1), ("layer3.0.conv1", 2)]
SPACE = """
method:
  choice:
    l1: {}
    bn_scale: {penalty: {float: [1e-5, 1e-3], log: true}, share: 0.25}
target: {flops: {float: [0.1, 0.8]}}
allocation:
  choice:
    uniform: {}
    global: {normalise: {choice: [mean, max]}}
    ratios: {ratios: {each: stage, float: [0.2, 1]}}
training: {images: {int: [128, 640], step: 128}, lr: {float: [0.001, 0.1], log: true}}
"""
FILE = f"task: {{kind: classification}}\nspace:\n{SPACE.replace(chr(10), chr(10) + '  ')}\nbudget: {{trials: 7}}\n"


class Scripted:
    """Suggests what it was told to, else the low end; remembers what it was asked."""

    def __init__(self, **answers):
        self.answers, self.asked = answers, {}

    def _answer(self, name, default, *bounds):
        self.asked[name] = bounds
        return self.answers.get(name.replace(".", "_"), default)

    def suggest_float(self, name, low, high, *, log=False):
        return self._answer(name, low, low, high, log)

    def suggest_int(self, name, low, high, *, step=1, log=False):
        return self._answer(name, low, low, high, step, log)

    def suggest_categorical(self, name, choices):
        return self._answer(name, choices[0], *choices)


def drawn(seed):
    return optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed)).ask()


def read_space(text, **options):
    return Space.read(parse_yaml(text, "my.yaml"), "my.yaml: space", **options)
