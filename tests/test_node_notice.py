"""Notices of pre-emption, asked of a metadata service that answers as the clouds do."""

from __future__ import annotations

import pytest
from tests.kit import metadata

from byos_run.node.notice import Service, cloud_of


@pytest.fixture
def served():
    with metadata.serving() as told:
        yield told


@pytest.mark.parametrize(
    ("cloud", "seconds", "text"),
    [
        ("aws", 100, "AWS will terminate this instance"),
        ("azure", 40, "Azure has announced this machine's end (Preempt)"),
        ("gcp", 30, "Google Cloud takes this instance back"),
    ],
)
def test_a_notice_is_heard_with_the_time_that_it_leaves(served, cloud, seconds, text):
    """None as long as all is well; one request a look."""
    service = Service(cloud, environ=served.environ(cloud))
    assert [None, None, None] == [service.look() for _ in range(3)]
    assert 3 == len(served.asked)
    served.ends_in_s = seconds
    notice = service.look()

    assert notice is not None
    assert (text, 0) == (notice.text, service.failures)
    assert seconds - 2 <= notice.seconds_left <= seconds


def test_another_machines_end_is_not_ours(served):
    """Azure tells every machine of a set of every other's."""
    served.ends_in_s, served.azure_machine = 30, "another-vm"
    service = Service("azure", environ=served.environ("azure"))

    assert [None, None] == [service.look() for _ in range(2)]


def test_an_aws_token_that_is_too_old_is_renewed(served):
    """401 once, then a new token."""
    service = Service("aws", environ=served.environ("aws"))
    service.look()
    served.token, served.ends_in_s = "token-2", 60
    looks = [service.look() for _ in range(3)]

    assert [True, True, False] == [look is None for look in looks]


@pytest.mark.parametrize("cloud", ["aws", "azure", "gcp"])
def test_a_service_that_is_not_there_or_talks_nonsense_is_counted(served, cloud):
    """Nothing is raised."""
    nobody = Service(cloud, environ={metadata.VARIABLES[cloud]: "http://127.0.0.1:1"})
    assert [None, None] == [nobody.look() for _ in range(2)]
    assert 2 == nobody.failures
    served.answer = lambda *_: (200, '{"Events": 5, "time": []}')
    service = Service(cloud, environ=served.environ(cloud))

    assert [None] * 3 == [service.look() for _ in range(3)]


@pytest.mark.parametrize(
    ("files", "environ", "cloud"),
    [
        ({"sys_vendor": "Amazon EC2"}, {}, "aws"),
        ({"sys_vendor": "Xen", "product_name": "HVM domU amazon"}, {}, "aws"),
        ({"sys_vendor": "Microsoft Corporation", "chassis_asset_tag": "7783-7084-3265-9085-8269-3286-77"}, {}, "azure"),
        ({"sys_vendor": "Microsoft Corporation", "chassis_asset_tag": "a laptop"}, {}, ""),
        ({"sys_vendor": "Google", "product_name": "Google Compute Engine"}, {}, "gcp"),
        ({}, {"RESCALE_PROVIDER": "AWS"}, "aws"),
        ({"sys_vendor": "QEMU"}, {"RESCALE_PROVIDER": "somebody"}, ""),
    ],
)
def test_the_cloud_is_what_platform_or_firmware_say(tmp_path, files, environ, cloud):
    """Nothing is asked over the network to find out."""
    for name, text in files.items():
        (tmp_path / name).write_text(text + "\n")

    assert cloud == cloud_of(environ, dmi=tmp_path)
