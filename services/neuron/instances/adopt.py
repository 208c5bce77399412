"""Both ends of a load: the plan that a worker gets, and what its answer makes of the instance."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from cortex.v1 import model_pb2 as model
from services.backplane.errors import FleetError, Reason
from services.neuron.chat.answer import ChatStyle
from services.neuron.chat.reasoning import reasoning_markers
from services.neuron.chat.segments import ControlTokens
from services.neuron.chat.thinking_budget import Closing, closing_prompt, closing_text
from services.neuron.chat.tool_calls.formats import GENERIC, tool_format
from services.neuron.engine_api.frames import Loaded
from services.neuron.engine_api.model import LoadPlan, ModelInfo, Offload
from services.neuron.instances.division import Division, GgufRules
from services.neuron.instances.instances import Instance
from services.neuron.rendering.frames import TemplateSource
from services.neuron.rendering.renderer import Renderers
from services.neuron.settings import LlamaCppSettings, NeuronSettings
from services.neuron.supervisor.link import WorkerLink
from services.neuron.weights.inspect import Weights

_FORMATS = {
    model.CACHE_FORMAT_Q8: "q8",
    model.CACHE_FORMAT_Q6: "q6",
    model.CACHE_FORMAT_Q4: "q4",
}


def gguf_rules(settings: NeuronSettings, gpus: Collection[str], *, has_gpu: bool) -> GgufRules:
    """How GGUF models are divided here, by the settings and the GPUs that llama.cpp sees."""
    wanted = settings.llamacpp
    return GgufRules(
        gpus=gpus,
        most_layers=wanted.gpu_layers,
        cpu_experts=wanted.cpu_experts,
        has_gpu=has_gpu,
    )


def offload_of(
    division: Division | None, ggml_ids: Mapping[str, str], settings: LlamaCppSettings
) -> Offload:
    """What llama.cpp is told of a division: its own ids of the GPUs, and the settings' wishes."""
    if division is None or division.gpu_layers == 0:
        return Offload()
    gpus = [ggml_ids[name] for name in division.device_ids if name in ggml_ids]
    return Offload(
        device_ids=tuple(gpus),
        gpu_layers=division.gpu_layers,
        cpu_experts=settings.cpu_experts,
        by_rows=settings.split == "rows",
        flash_attention=settings.flash_attention,
    )


def plan_of(
    instance: Instance,
    engine: str,
    weights: Weights,
    settings: NeuronSettings,
    *,
    spec: model.LoadSpec,
) -> LoadPlan:
    """The order for the worker: files, devices and sizes, every choice made.

    What the caller asked for counts first, then the settings; their upper limits hold for both.

    Args:
        instance: what is loaded.
        engine: that loads it.
        weights: its files.
        settings: the neuron's.
        spec: of the instance, settled.
    """
    return LoadPlan(
        instance_id=instance.instance_id,
        engine=engine,
        path=str(weights.path),
        max_context_tokens=spec.max_context_tokens or None,
        max_sequences=spec.max_sequences or None,
        max_queued=settings.max_queued,
        queue_timeout_seconds=settings.queue_timeout_seconds,
        cache_tokens=spec.cache_tokens or None,
        cache_format=_FORMATS.get(spec.cache_format, "fp16"),
        cache_bytes_per_token=weights.cache_bytes_per_token,
        embedding=spec.embedding or weights.is_embedder,
        threads=settings.threads,
        ngram_draft=spec.ngram_draft,
        model=instance.model,
        principal=instance.principal,
    )


async def adopt(instance: Instance, loaded: Loaded, link: WorkerLink, renderers: Renderers) -> None:
    """Sets an instance's info, templates, reasoning markers and tool format from the loaded model.

    Raises:
        FleetError: the load's own formats or template cannot be used, or the worker died.
    """
    info, spec = loaded.info, instance.spec
    instance.info = info
    instance.control_tokens = ControlTokens(info.control_tokens)
    source = spec.chat_template or info.chat_template or ""
    for_tools = "" if spec.chat_template else info.tool_template or ""
    markers = reasoning_markers(spec.reasoning_format, source + for_tools)
    style = tool_format(spec.tool_format, for_tools or source)
    instance.style = ChatStyle(markers, style, info.control_tokens)
    if not info.embedding_size:
        shows_tools = instance.style.tool_format != GENERIC
        texts = [text for text in (source, for_tools) if text] if source else []
        templates = tuple(_template(text, info, shows_tools=shows_tools) for text in texts)
        # where its worker died, and nothing else, all that renders is there
        if instance.renderer is None or instance.templates != templates:
            if instance.renderer is not None:
                instance.renderer.close()
            instance.templates = templates
            await _start_rendering(instance, templates, renderers)
    await _learn_closing(instance, link)


async def _start_rendering(
    instance: Instance, templates: tuple[TemplateSource, ...], renderers: Renderers
) -> None:
    instance.renderer = instance.template_error = None
    try:
        instance.renderer = await renderers.start(templates, instance.model)
    except FleetError as error:
        # the operator's own: better told now than at the first chat
        if instance.spec.chat_template or error.reason is not Reason.TEMPLATE_FAILED:
            raise
        # chats without tools may do, and what needs no template does
        await _start_rendering(instance, templates[:1] if len(templates) > 1 else (), renderers)
        instance.template_error = instance.template_error or error


async def _learn_closing(instance: Instance, link: WorkerLink) -> None:
    """Has the model's own vocabulary spell what ends its reasoning."""
    markers, info = instance.style.markers, instance.info
    if markers is None or info is None or info.embedding_size:
        return
    prompt = closing_prompt(markers, info.control_tokens)
    counted = await link.count(instance.instance_id, prompt, wants_ids=True)
    instance.closing = Closing(closing_text(markers), counted.token_ids)


def _template(source: str, info: ModelInfo, *, shows_tools: bool) -> TemplateSource:
    variables = {"bos_token": info.bos_token, "eos_token": info.eos_token}
    return TemplateSource(source, info.control_tokens, variables, shows_tools)
