// Storage of 16 bits, words of 4 elements that are put together from pairs.
alias Stored = u32;
