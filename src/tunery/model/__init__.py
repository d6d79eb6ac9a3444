"""The network: a base of transformers, our LoRA linears, our attention. One forward pass for both.

Training and serving differ in two things only: which LoRA linear stands in for each of the base's
(`lora`), and which layout tells attention whose keys a query may see (`attention`).
"""
