import argparse

from segearth.evaluation.configuration import add_config_options


def test_spaces_of_a_folder_stay_in_cfg_options():
    parser = argparse.ArgumentParser()
    add_config_options(parser)
    given = ['model.clip_type=local-dir:/a/my models/x=1', 'model.prob_thd=0.5']
    parsed = parser.parse_args(['--cfg-options', *given])
    assert parsed.cfg_options == {'model.clip_type': 'local-dir:/a/my models/x=1', 'model.prob_thd': 0.5}
    assert parsed.cfg_options_as_given == given
