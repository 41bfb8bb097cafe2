import hashlib
import io
import zipfile
from dataclasses import replace

import huggingface_hub.constants
import open_clip
import pytest

from segearth.errors import CheckpointError, ConfigError, MissingFileError
from segearth.weights import program as download_weights
from segearth.weights import sources
from segearth.weights.encoders import ENCODERS
from segearth.weights.records import TAG, UPSAMPLER_WEIGHTS, Checksum, WeightRecord, upsampler_record
from segearth.weights.sources import catalogue, select
from segearth.weights.transfer import DownloadError, verify

CONTENT = b'tensors ' * 5000
CHECKSUM = Checksum('sha256', hashlib.sha256(CONTENT).hexdigest())


def address_record(server, **changes):
    known = {'name': 'Some-weights', 'group': 'Some', 'file': 'some.pt', 'url': f'{server.url}/some.pt'}
    return WeightRecord(**{**known, 'home': 'https://home', 'licence': 'MIT', **changes})


def hub_record():
    return WeightRecord(
        name='Hub-weights', group='Hub', file='mine.pt', hub='owner/name/ckpt/theirs.pt', home='https://home',
        licence='MIT',
    )  # fmt: skip


HUB_PATH = '/owner/name/resolve/main/ckpt/theirs.pt'


def test_the_catalogue_offers_every_record_with_its_licence():
    names = [record.name for record in catalogue()]
    assert names[: len(ENCODERS)] == [record.name for record in ENCODERS]
    assert {record.name for record in UPSAMPLER_WEIGHTS} < set(names)
    assert len(names) == len(set(names))
    for record in catalogue():
        assert record.licence and record.home and record.origin
        assert (record.file is None) == (record.source == TAG)


def test_the_released_upsampler_is_known_by_its_git_blob():
    (record,) = select(['SimFeatUp-jbu_one'])
    assert record.checksum == Checksum('git blob', 'd40f00838331331faa04a926ea5991f5203f91a8')
    assert upsampler_record('simfeatup_dev/weights/xclip_jbu_one_million_aid.ckpt').name == record.name
    assert record.name in upsampler_record('xclip_jbu_one_million_aid.ckpt').remedy
    assert upsampler_record('mine.ckpt') is None


def test_the_checksum_of_a_release_at_hand(shared):
    record = upsampler_record('clip_jbu_stack_cocostuff.ckpt')
    verify(shared / 'weights' / record.file, record.checksum)


def test_select():
    assert [record.name for record in select(['remoteclip'])] == ['RemoteCLIP-ViT-B-32', 'RemoteCLIP-ViT-L-14']
    assert [record.name for record in select(['BLIP-base', 'BLIP'])] == ['BLIP-base', 'BERT-tokenizer', 'BLIP-large']
    with pytest.raises(ConfigError, match="unknown weights 'RemotClip'. Did you mean RemoteCLIP.*Known: CLIP-ViT-B-16"):
        select(['RemotClip'])


def test_an_address(server, folder):
    server.files['/some.pt'] = CONTENT
    record = address_record(server)
    with pytest.raises(MissingFileError, match='not there'):
        sources.check(record)
    path = sources.install(record)
    assert path == folder / 'some.pt'
    assert path.read_bytes() == CONTENT
    assert sources.check(record) == 'sha256 as fetched'
    assert sources.check(replace(record, checksum=CHECKSUM)) == 'sha256 as published'
    assert sources.install(record) == path
    assert len(server.requests) == 1, 'nothing that is there is fetched again'
    path.write_bytes(CONTENT[:-1])
    with pytest.raises(CheckpointError, match='some.pt is damaged'):
        sources.check(record)


def test_a_damaged_file_that_is_there_is_reported_and_kept(server, folder):
    folder.mkdir()
    (folder / 'some.pt').write_bytes(b'mine')
    record = address_record(server, checksum=CHECKSUM)
    with pytest.raises(CheckpointError, match='damaged or not the published file'):
        sources.install(record)
    assert (folder / 'some.pt').read_bytes() == b'mine'
    assert not server.requests
    assert sources.check(address_record(server)) == 'no checksum known'


def test_errors_name_the_page_of_the_project(server, folder):
    with pytest.raises(
        DownloadError, match=r'some.pt could not be fetched: the server answered 404.*page: https://home$'
    ):
        sources.install(address_record(server))
    server.files['/some.pt'] = CONTENT
    with pytest.raises(CheckpointError, match=r'thrown away.*page: https://home$'):
        sources.install(address_record(server, checksum=Checksum('git blob', '0' * 40)))
    assert not (folder / 'some.pt').exists()


@pytest.mark.parametrize(
    ('name', 'message'),
    [('ALIP', 'github.com/deepglint/ALIP'), ('CLIPSelf', 'CLIPSelf'), ('DemoSAR', 'git checkout')],
)
def test_what_no_program_can_fetch(folder, monkeypatch, name, message):
    monkeypatch.setattr(sources, 'locate', lambda _: None)
    with pytest.raises(DownloadError, match=message):
        sources.install(select([name])[0])


def zipped(*names):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, 'w') as archive:
        for name in names:
            archive.writestr(name, CONTENT)
    return buffer.getvalue()


def test_a_file_inside_an_archive(server, folder):
    record = address_record(server, file='Sky/epoch_20.pt', url=f'{server.url}/Sky.zip')
    for content, message in ((zipped('a/other.pt'), 'holds 0 files named epoch_20.pt'), (b'no zip', 'no whole zip')):
        server.files['/Sky.zip'] = content
        with pytest.raises(CheckpointError, match=message):
            sources.install(record)
        (folder / 'Sky.zip').unlink(missing_ok=True)
    server.files['/Sky.zip'] = zipped('Sky/readme.txt', 'Sky/ckpt/epoch_20.pt', '../../escape.pt')
    path = sources.install(record)
    assert path == folder / 'Sky' / 'epoch_20.pt'
    assert path.read_bytes() == CONTENT
    assert sources.check(record) == 'sha256 as fetched'
    assert sorted(entry.name for entry in folder.iterdir()) == ['Sky'], 'the archive is gone, nothing escaped'


def test_hugging_face_through_a_mirror(hub, folder):
    hub.files[HUB_PATH] = CONTENT
    path = sources.install(hub_record())
    assert path == folder / 'mine.pt'
    assert path.read_bytes() == CONTENT
    assert sources.check(hub_record()) == 'sha256 as fetched'
    assert [method for method, *_ in hub.requests].count('GET') == 1
    assert sources.install(hub_record()) == path
    assert [method for method, *_ in hub.requests].count('GET') == 1


def test_what_hugging_face_states_is_verified(hub, folder):
    hub.files[HUB_PATH] = CONTENT
    hub.hub_etag[HUB_PATH] = f'"{"0" * 64}"'
    with pytest.raises(CheckpointError, match='thrown away.*expected 0000'):
        sources.install(hub_record())
    assert not (folder / 'mine.pt').exists()


def test_a_file_or_mirror_that_is_not_there(hub, folder):
    with pytest.raises(
        DownloadError, match=r'owner/name/ckpt/theirs.pt could not be fetched from Hugging Face.*https://home'
    ):
        sources.install(hub_record())
    hub.http.shutdown()
    hub.http.server_close()
    with pytest.raises(DownloadError, match='could not be fetched from Hugging Face'):
        sources.install(hub_record())


def test_offline_mode(hub, folder, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, 'HF_HUB_OFFLINE', True)
    for record in (hub_record(), select(['CLIP-ViT-B-16'])[0]):
        with pytest.raises(DownloadError, match='offline mode is on'):
            sources.install(record)
    assert not hub.requests


def test_tags_go_through_open_clip_into_the_cache(hub, folder, monkeypatch):
    (record,) = select(['CLIP-ViT-B-16'])
    hub.files['/timm/vit_base_patch16_clip_224.openai/resolve/main/open_clip_model.safetensors'] = CONTENT
    assert sources.locate(record) is None
    path = sources.install(record)
    assert path.read_bytes() == CONTENT
    assert sources.locate(record) == path
    assert sources.check(record) == 'sha256 as published'
    asked = len(hub.requests)
    assert sources.install(record) == path
    assert len(hub.requests) == asked
    path.resolve().write_bytes(b'damage')
    with pytest.raises(CheckpointError, match='damaged'):
        sources.check(record)


def test_a_tag_that_cannot_be_fetched(hub, folder):
    (record,) = select(['OpenCLIP-ViT-L-14'])
    with pytest.raises(DownloadError, match="open_clip's tag 'laion2b_s32b_b82k' of ViT-L-14 .* could not be fetched"):
        sources.install(record)


def test_every_tag_is_on_hugging_face():
    for record in catalogue():
        if record.source == TAG:
            assert open_clip.get_pretrained_cfg(record.architecture, record.tag)['hf_hub'].endswith('/')


@pytest.fixture
def program(monkeypatch):
    monkeypatch.setenv('COLUMNS', '300')
    return download_weights


def test_program_list(program, folder, capsys):
    assert program.run(['--list', 'RemoteCLIP', 'ALIP']) == 0
    printed = capsys.readouterr().out
    for part in ('RemoteCLIP-ViT-B-32', 'not there', 'Apache-2.0', 'by hand', str(folder)):
        assert part in printed
    assert 'GeoRSCLIP' not in printed


def test_program_fetches_says_licences_and_counts_failures(program, server, folder, capsys, monkeypatch):
    server.files['/some.pt'] = CONTENT
    records = [
        address_record(server),
        address_record(server, name='Other', file='other.pt', url=f'{server.url}/other.pt'),
    ]
    monkeypatch.setattr(program, 'select', lambda _: records)
    monkeypatch.setattr(program, 'catalogue', lambda: records)
    assert program.run(['--all']) == 1
    printed = capsys.readouterr().out
    for part in ('1/2 Some-weights, licence: MIT', str(folder / 'some.pt'), 'answered 404', '1 of 2 there'):
        assert part in printed
    server.files['/other.pt'] = CONTENT
    assert program.run(['Some', 'Other']) == 0
    assert 'already there' in capsys.readouterr().out
    assert program.run(['--check']) == 0
    assert '2 of 2 as they should be' in capsys.readouterr().out
    (folder / 'other.pt').write_bytes(b'')
    assert program.run(['--check']) == 1
    assert '1 of 2 as they should be' in capsys.readouterr().out
    (folder / 'other.pt').unlink()
    assert program.run(['--check']) == 0, 'what was never fetched is no fault'
    assert program.run(['--check', 'Other']) == 1, 'unless it is named'
    assert 'not there' in capsys.readouterr().out


def test_program_without_arguments(program, capsys):
    assert program.run([]) == 2
    assert '--list' in capsys.readouterr().err
    with pytest.raises(SystemExit):
        program.run(['--all', 'CLIP'])
