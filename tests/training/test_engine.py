from __future__ import annotations

import copy
import csv

import pytest
import torch
from huggingface_hub import ModelCard
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from segearth.errors import CheckpointError, ConfigError, MissingFileError
from segearth.models.build import build_encoder
from segearth.models.feature_upsampler import build_feature_upsampler
from segearth.training import engine
from segearth.training.checkpoints import last_checkpoint, read_checkpoint
from segearth.training.engine import load_training_config, train
from segearth.weights.push import check_folder
from simfeatup import load_upsampler


class Killed(Exception):
    pass


@HOOKS.register_module()
class KillAt(Hook):
    def __init__(self, step):
        self.step = step

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if batch_idx == self.step:
            raise Killed


def trained(work_dir, step=6):
    return read_checkpoint(work_dir / f'step_{step}.pt')


def test_a_resumed_run_ends_with_the_same_weights(micro, tmp_path):
    micro.optim_wrapper.accumulative_counts = 2
    train(copy.deepcopy(micro), tmp_path / 'whole')
    killed = copy.deepcopy(micro)
    killed.custom_hooks.append(dict(type='KillAt', step=5))
    with pytest.raises(Killed):
        train(killed, tmp_path / 'cut')
    assert last_checkpoint(tmp_path / 'cut').name == 'step_4.pt'
    train(copy.deepcopy(micro), tmp_path / 'cut', resume=True)
    whole, resumed = trained(tmp_path / 'whole'), trained(tmp_path / 'cut')
    for name, value in whole['model'].items():
        torch.testing.assert_close(resumed['model'][name], value, msg=name)
    start = trained(tmp_path / 'whole', 4)['model']
    assert any(not torch.equal(start[name], value) for name, value in whole['model'].items())
    histories = [list(csv.DictReader((tmp_path / run / 'history.csv').open())) for run in ('whole', 'cut')]
    assert [row['step'] for row in histories[0]] == [row['step'] for row in histories[1]] == list('123456')


def test_a_row_of_the_history_goes_on_over_an_interruption(micro, tmp_path):
    micro.custom_hooks[1].interval = 3
    train(copy.deepcopy(micro), tmp_path / 'whole')
    killed = copy.deepcopy(micro)
    killed.custom_hooks.append(dict(type='KillAt', step=5))
    with pytest.raises(Killed):
        train(killed, tmp_path / 'cut')
    train(copy.deepcopy(micro), tmp_path / 'cut', resume=True)
    histories = [list(csv.DictReader((tmp_path / run / 'history.csv').open())) for run in ('whole', 'cut')]
    assert [row['step'] for row in histories[0]] == ['3', '6']
    for whole, cut in zip(*histories, strict=True):
        assert {name: float(value) for name, value in cut.items()} == pytest.approx(
            {name: float(value) for name, value in whole.items()}
        )


def test_what_a_run_leaves_behind(micro, tmp_path, tiny_clip):
    validation = dict(micro.train_dataloader.dataset, seed=9)
    micro.custom_hooks[1] = dict(
        type='Monitor', interval=2, validation=validation, num_samples=2, validation_interval=2
    )
    micro.custom_hooks.append(dict(type='Pictures', interval=6, num_images=2))
    model = train(micro, tmp_path / 'run')
    names = {path.name for path in (tmp_path / 'run').iterdir()}
    assert {'last.ckpt', 'last.safetensors', 'best.ckpt', 'best.safetensors', 'best.json', 'history.csv'} <= names
    assert {path.name for path in (tmp_path / 'run').glob('step_*.pt')} == {'step_4.pt', 'step_6.pt'}
    assert (tmp_path / 'run' / 'pictures' / 'step_6.png').stat().st_size > 1000
    assert (tmp_path / 'run' / 'curves.png').stat().st_size > 1000

    # the weights of the file, on features as the encoder gives them, do what training did on scaled ones
    features, guidance = torch.randn(1, 16, 4, 4), torch.randn(1, 3, 32, 32)
    objective = model.objective.eval()
    assert objective.feature_scale != 1
    expected = objective.feature_scale * objective.upsample(features, guidance)
    from simfeatup.upsamplers.jbu import JBUOne

    for suffix in ('ckpt', 'safetensors'):
        from simfeatup.weight_files import read_state_dict

        weights = read_state_dict(tmp_path / 'run' / f'last.{suffix}')
        upsampler = JBUOne(16, radius=1, key_dim=4).eval()
        upsampler.load_state_dict(weights)
        torch.testing.assert_close(upsampler(features, guidance), expected)
    # the folder for others: the same weights, a card that is filled in but for the licence, nothing of this machine
    folder = tmp_path / 'run' / 'model_6'
    found = build_feature_upsampler({'model_path': f'local-dir:{folder}'}, None, 16)
    torch.testing.assert_close(found(features, guidance), expected)
    card = ModelCard.load(folder / 'README.md')
    assert (card.data.library_name, card.data.license) == ('segearth', '')
    with pytest.raises(ConfigError, match='names no licence'):
        check_folder(folder)
    for part in ('for Demo', '3 images', '6 steps of 2', "`'NAdam'`", 'least validation', 'hf-hub:ORG/NAME'):
        assert part in card.text
    assert str(tmp_path) not in card.text
    (folder / 'README.md').write_text('---\nlicense: mit\n---\nmine')
    train(copy.deepcopy(micro), tmp_path / 'run', resume=True)
    assert (folder / 'README.md').read_text().endswith('mine'), 'what users wrote stays'
    check_folder(folder)
    for checkpoint in (tmp_path / 'run').glob('step_*.pt'):
        checkpoint.unlink()
    with pytest.raises(ConfigError, match=r'model of another training \(model_6\)'):
        train(copy.deepcopy(micro), tmp_path / 'run')

    encoder = build_encoder('Demo', clip_path=str(tiny_clip)).visual.state_dict()
    for name, value in model.encoder.state_dict().items():
        assert torch.equal(value, encoder[name])


def test_the_exported_file_loads_as_the_original_does(micro, tmp_path):
    micro.model.upsampler = dict(name='jbu_one')
    micro.train_cfg.max_iters = 1
    micro.optim_wrapper.accumulative_counts = 1
    train(micro, tmp_path / 'run')
    assert load_upsampler('jbu_one', 16, tmp_path / 'run' / 'last.ckpt') is not None
    content = torch.load(tmp_path / 'run' / 'last.ckpt', weights_only=True)
    assert all(name.startswith('upsampler.') for name in content['state_dict'])


def test_starts_as_the_colour_filter(micro, tmp_path):
    start = dict(type='StartAsFilter', num_images=2, num_steps=5, sigma_spatial=0.7)
    micro.custom_hooks.append(start)
    micro.optim_wrapper.optimizer.lr = 0.0
    train(copy.deepcopy(micro), tmp_path / 'work')
    model = trained(tmp_path / 'work')['model']
    assert model['objective.upsampler.up.sigma_spatial'] == pytest.approx(0.7)
    assert not model['objective.upsampler.fixup_proj.1.weight'].any()
    start['sigma'] = 1
    with pytest.raises(ConfigError, match='StartAsFilter.*sigma_spatial'):
        train(copy.deepcopy(micro), tmp_path / 'other')
    micro.custom_hooks[-1] = dict(type='StartAsFilter', num_images=0)
    with pytest.raises(ConfigError, match='num_images.*0'):
        train(copy.deepcopy(micro), tmp_path / 'none')


def test_errors(micro, tmp_path):
    train(copy.deepcopy(micro), tmp_path / 'run', {'train_cfg.max_iters': 2})
    with pytest.raises(ConfigError, match='--resume'):
        train(copy.deepcopy(micro), tmp_path / 'run')
    with pytest.raises(CheckpointError, match='other settings'):
        train(copy.deepcopy(micro), tmp_path / 'run', {'model.upsampler.radius': 2}, resume=True)
    with pytest.raises(ConfigError, match='no multiple of the 4 accumulated'):
        train(copy.deepcopy(micro), tmp_path / 'other', {'optim_wrapper.accumulative_counts': 4})
    (tmp_path / 'run' / 'step_2.pt').write_bytes(b'nonsense')
    with pytest.raises(CheckpointError, match='step_2.pt cannot be read'):
        train(copy.deepcopy(micro), tmp_path / 'run', resume=True)
    with pytest.raises(MissingFileError, match='simfeatup/demo.py'):
        load_training_config('configs/simfeatup/none.py')
    with pytest.raises(ConfigError, match='has no train_dataloader'):
        load_training_config('configs/cfg_demo.py')


@pytest.mark.parametrize(
    ('override', 'message'),
    [
        ({'model.size': 30}, 'nearest: 24 and 32'),
        ({'model.features': 'nothing'}, 'known: readout, last_block_input'),
        ({'model.upsampler': {'_delete_': True, 'name': 'anything'}}, 'anything has no weights that could be trained'),
        ({'model.recipe.jitters': 2}, 'num_jitters'),
        ({'model.precision': 'fp8'}, 'known: fp32'),
        ({'train_dataloader.dataset.root': 'nowhere'}, 'image folder not found'),
        ({'train_dataloader.dataset.kind': 'lidar'}, 'known: optical, sar'),
        ({'train_dataloader.dataset.sise': 32}, 'does not fit.*sise'),
        ({'train_dataloader.dataset.size': 24}, 'dataset.size is 24 and model.size 32'),
        ({'train_dataloader.dataset.size': 0}, 'size of ImageFolder is 0'),
        ({'train_dataloader.dataset.type': 'Nothing'}, 'Nothing is not in the mmengine::dataset registry$'),
        ({'train_dataloader.batch_size': 0}, 'does not fit.*batch_size'),
        ({'optim_wrapper.optimizer.rate': 1}, 'does not fit.*rate'),
        ({'param_scheduler.0.type': 'Nothing'}, 'Nothing is not in'),
        ({'custom_hooks.1.interval': 0}, 'interval of Monitor is 0'),
        ({'custom_hooks.2.keep': 'all'}, "keep of Checkpoints is 'all'"),
        ({'custom_hooks.3.num_images': 0}, 'num_images of Calibration is 0'),
    ],
)
def test_mistakes_in_a_config(micro, tmp_path, override, message):
    with pytest.raises((ConfigError, MissingFileError), match=message):
        train(micro, tmp_path / 'run', override)


@pytest.mark.parametrize(('flags', 'keeps'), [([], True), (['--give-back-memory'], False)])
def test_memory_is_kept_unless_asked_otherwise(monkeypatch, flags, keeps):
    calls = []
    monkeypatch.setattr(engine, 'keep_freed_memory', lambda: calls.append('keep'))
    monkeypatch.setattr(engine, 'train', lambda *arguments: calls.append(arguments))
    engine.main('Trains.', ['demo.py', '--work-dir', 'runs', *flags])
    assert calls == ['keep'] * keeps + [('demo.py', 'runs', {}, False)]
