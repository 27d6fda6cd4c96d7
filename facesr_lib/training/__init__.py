"""Training: one file per trained network; every run can be interrupted at any moment and resumed exactly."""
