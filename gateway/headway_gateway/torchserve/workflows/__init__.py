"""TorchServe's workflows: archives and functions in a row or side by side, asked as one."""
