export async function mount(): Promise<void> {}
