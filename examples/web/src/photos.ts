/** What comes with the page (cli/assets/photos). */
export const OWN = ["astronaut", "chelsea", "coffee", "rocket"] as const;

/** Something to look at. */
export interface Photo {
  readonly name: string;
  readonly source: ImageBitmap;
}

export async function fetched(name: string): Promise<Photo> {
  const response = await fetch(`photos/${name}.jpg`);
  if (!response.ok) {
    throw new Error(`the photograph ${name} cannot be loaded (${response.status})`);
  }
  return { name, source: await createImageBitmap(await response.blob()) };
}

export async function opened(file: File): Promise<Photo> {
  try {
    return { name: file.name, source: await createImageBitmap(file) };
  } catch {
    throw new Error(`${file.name} is no picture that this browser reads`);
  }
}

const scratch = document.createElement("canvas");

/** The middle square of a picture, in so many pixels across. */
export function square(source: ImageBitmap | HTMLVideoElement, size: number): ImageData {
  const video = source instanceof HTMLVideoElement;
  const width = video ? source.videoWidth : source.width;
  const height = video ? source.videoHeight : source.height;
  scratch.width = size;
  scratch.height = size;
  const context = scratch.getContext("2d", { willReadFrequently: true });
  if (context === null) {
    throw new Error("the browser gives no canvas to read pictures with");
  }
  const side = Math.min(width, height);
  context.imageSmoothingQuality = "high";
  context.drawImage(source, (width - side) / 2, (height - side) / 2, side, side, 0, 0, size, size);
  return context.getImageData(0, 0, size, size);
}

/** The camera, playing, until it is stopped. */
export async function camera(): Promise<{ video: HTMLVideoElement; stop: () => void }> {
  if (navigator.mediaDevices === undefined) {
    throw new Error("this browser gives pages no camera here: serve the page by https, or from localhost");
  }
  let stream: MediaStream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw new Error(`the camera cannot be used: ${why}`);
  }
  const video = document.createElement("video");
  video.muted = true;
  video.playsInline = true;
  video.srcObject = stream;
  await video.play();
  return { video, stop: () => stream.getTracks().forEach((track) => track.stop()) };
}
