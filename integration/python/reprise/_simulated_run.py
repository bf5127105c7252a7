"""One run of a script on the simulated device, in a process of its own (simulate.py starts it, by path): usage: _simulated_run.py REQUEST.json SCRIPT ARGUMENTS…

Nothing here may import torch, or reprise, before the simulator is loaded. The script is stopped after a few optimizer steps; what it found out goes to request["out"]."""

import json
import os
import runpy
import sys
import traceback


class Enough(BaseException):
    """The steps asked for are done. No script catches it by `except Exception`."""


class Watch:
    """Counts steps, gives the model to reprise when it is first called, and reads the peaks."""

    def __init__(self, request, device):
        import torch
        from torch.nn.modules.module import register_module_forward_pre_hook
        from torch.optim.optimizer import register_optimizer_step_post_hook

        import reprise

        self.torch, self.reprise, self.request, self.device = torch, reprise, request, device
        self.steps, self.start_bytes, self.root, self.by_optimizer = 0, 0, None, {}
        self.own_auto_checkpoint, reprise.auto_checkpoint = reprise.auto_checkpoint, self.auto_checkpoint
        self.take_up(None)  # what is no module: a Pass on the device is enough
        register_module_forward_pre_hook(self.on_forward)
        register_optimizer_step_post_hook(self.on_step)

    def auto_checkpoint(self, model=None, budget=None, **options):
        """The script's own call: the budget asked about here counts, not the script's."""
        self.root = model
        self.take_up(model, **{key: options[key] for key in ("exclude",) if key in options})
        return model

    def take_up(self, model, **options):
        self.own_auto_checkpoint(model, self.request["budget"], **options)
        if self.request.get("learned"):
            self.reprise.resume(self.reprise.Learned.from_json(self.request["learned"]))

    def on_forward(self, module, _):
        """The first module that is called for training is the model."""
        if self.root is None and self.torch.is_grad_enabled() and any(p.is_cuda and p.requires_grad for p in module.parameters()):
            self.root = module
            self.take_up(module)
        if module is self.root:
            self.start_bytes = self.torch.cuda.memory_allocated()

    def on_step(self, optimizer, *_):
        count = self.by_optimizer[id(optimizer)] = self.by_optimizer.get(id(optimizer), 0) + 1
        if count <= self.steps:
            return  # another optimizer of the same step
        self.steps = count
        if count >= self.request["steps"]:
            raise Enough

    def found(self, error, infeasible):
        report, plan = self.reprise.report().data, None
        try:
            learned, profile = self.reprise.learned().to_json(), self.reprise.profile().data["body"]
        except RuntimeError:  # no step came to its end
            learned = profile = None
        if profile and "plan" in report:
            forward = sum(op["forward_seconds"] for op in profile["ops"])
            plan = {**{key: report["plan"][key] for key in ("scheme", "kept_values", "packed_values", "groups")}, "added_seconds": report["predicted"]["added_seconds"],
                    "predicted_peak_bytes": report["predicted"]["peak_live_bytes"], "measured_peak_bytes": report["measured"]["peak_live_bytes"], "step_seconds": 3 * forward}
        refused = report.get("infeasible")  # without an exception: no Plan was found, and letting go under pressure carried the step, which the next run may not see
        missing = refused["smallest_limit_bytes"] - refused["limit_bytes"] if refused else 0
        return {"error": error, "missing_bytes": missing, "infeasible": str(infeasible) if infeasible else None,
                "smallest_budget": getattr(infeasible, "smallest_budget", None), "steps": self.steps, "passes": report["passes"],
                "peak_bytes": self.device.peak(), "live_peak_bytes": self.torch.cuda.max_memory_allocated(), "start_bytes": self.start_bytes, "learned": learned, "plan": plan}


def start_simulator(request):
    sys.path.insert(0, request["folder"])
    import simcuda

    sys.path.pop(0)
    rates = {"SIMCUDA_TERA_OPERATIONS": request["tera_operations"], "SIMCUDA_GIGABYTES": request["giga_bytes_per_second"]}
    os.environ.update({key: str(value) for key, value in rates.items()})
    return simcuda.activate(hollow=True, name=request["name"], capability=request["capability"], shown_mib=request["total_bytes"] >> 20)


def main(request, script, arguments):
    device = start_simulator(request)
    watch = Watch(request, device)
    if request["on_device"]:
        watch.torch.set_default_device("cuda")
    sys.argv = [script, *arguments]
    sys.path[0] = os.path.dirname(os.path.abspath(script))
    error = infeasible = None
    try:
        runpy.run_path(script, run_name="__main__")
    except Enough:
        pass
    except watch.torch.OutOfMemoryError as refused:
        infeasible = refused
        if request["budget"] is None:
            error = traceback.format_exc()
    except SystemExit as ended:
        if ended.code not in (None, 0):
            error = f"sys.exit({ended.code!r})"
    except BaseException:
        error = traceback.format_exc()
    found = json.dumps(watch.found(error, infeasible))
    with open(request["out"], "w", encoding="utf-8") as file:
        file.write(found)
    sys.stdout.flush()
    os._exit(0)  # a script that was stopped has threads, workers and files that nobody closes


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as asked:
        main(json.load(asked), sys.argv[2], sys.argv[3:])
