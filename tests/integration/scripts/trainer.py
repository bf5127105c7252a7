"""GPT-2 under the transformers Trainer; knows nothing of reprise. Its last line is a digest of all losses and final parameters."""

import hashlib
import tempfile

import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments, set_seed

set_seed(0)
torch.set_num_threads(2)
model = GPT2LMHeadModel(GPT2Config(vocab_size=256, n_positions=128, n_embd=192, n_layer=6, n_head=4, use_cache=False, bos_token_id=0, eos_token_id=0))
tokens = torch.randint(0, 256, (48, 128))
rows = [{"input_ids": row, "labels": row} for row in tokens]
with tempfile.TemporaryDirectory() as folder:
    arguments = TrainingArguments(folder, per_device_train_batch_size=8, max_steps=6, logging_steps=1, report_to=[], save_strategy="no", use_cpu=True, disable_tqdm=True)
    trainer = Trainer(model, arguments, train_dataset=rows)
    trainer.train()
digest = hashlib.sha256(repr([entry["loss"] for entry in trainer.state.log_history if "loss" in entry]).encode())
for parameter in model.parameters():
    digest.update(parameter.detach().numpy().tobytes())
print("digest", digest.hexdigest())
