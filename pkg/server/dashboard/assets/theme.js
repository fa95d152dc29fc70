// A classic script in the head: the chosen theme is there before the first paint.
document.documentElement.dataset.theme = localStorage.getItem('ai-storage-theme') ?? 'auto';
