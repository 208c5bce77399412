import pytest

from services.registry.store.kubernetes.address import KubernetesAddress


def test_namespace_and_name_are_the_own_clusters():
    assert KubernetesAddress.parse("kubernetes://llm/fleet-a") == KubernetesAddress(
        "llm", "fleet-a"
    )


def test_another_server_is_named_with_its_files():
    url = "kubernetes://llm/fleet?server=https://k8s.example:6443&token_file=/t&ca_file=/ca%20a"

    assert KubernetesAddress.parse(url) == KubernetesAddress(
        "llm", "fleet", "https://k8s.example:6443", "/t", "/ca a"
    )


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("kubernetes://llm", "name is none"),
        ("kubernetes:///fleet", "namespace is none"),
        ("kubernetes://LLM/fleet", "namespace is none"),
        ("kubernetes://llm/fleet/more", "name is none"),
        ("kubernetes://user@llm/fleet", "namespace is none"),
        ("kubernetes://llm/-fleet", "name is none"),
        (f"kubernetes://llm/{'x' * 201}", "name is none"),
        ("kubernetes://llm/fleet?token=secret", "server, token_file, ca_file"),
        ("kubernetes://llm/fleet?secret", "server, token_file, ca_file"),
        ("kubernetes://llm/fleet#x", "server, token_file, ca_file"),
        ("kubernetes://llm/fleet?server=k8s.example", "no https://"),
        ("kubernetes://llm/fleet?server=https://ann:secret@k8s.example", "no https://"),
        ("kubernetes://llm/fleet?server=http://k8s.example", "plain HTTP"),
    ],
)
def test_what_is_none_is_told_and_not_repeated(url, words):
    with pytest.raises(ValueError, match=words) as told:
        KubernetesAddress.parse(url)

    assert "secret" not in str(told.value)
