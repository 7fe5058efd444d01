// Storage f32, words of 4 elements that are put together from single ones.
alias Stored = f32;
