/** What comes with the page (cli/assets/photos). */
export const OWN = ["astronaut", "chelsea", "coffee", "rocket"] as const;
export type OwnName = (typeof OWN)[number];

/** Something to look at. Each is one object, so that what was computed of it is found again. */
export interface Photo {
  readonly name: string;
  /** Whether it comes with the page. */
  readonly own: boolean;
  /** Loads it, once; after a failure, again. */
  readonly load: () => Promise<ImageBitmap>;
}

function photo(name: string): Photo {
  let loading: Promise<ImageBitmap> | undefined;
  const fetched = async (): Promise<ImageBitmap> => {
    const response = await fetch(`photos/${name}.jpg`).catch((error: unknown) => {
      throw new Error(`the photograph ${name} cannot be loaded (${error instanceof Error ? error.message : error})`);
    });
    if (!response.ok) {
      throw new Error(`the photograph ${name} cannot be loaded (${response.status})`);
    }
    return createImageBitmap(await response.blob());
  };
  const load = (): Promise<ImageBitmap> => {
    loading ??= fetched().catch((error: unknown) => {
      loading = undefined;
      throw error;
    });
    return loading;
  };
  return { name, own: true, load };
}

const PHOTOS = new Map(OWN.map((name) => [name as string, photo(name)]));

/** A photograph of the page's own. */
export function own(name: OwnName): Photo {
  return PHOTOS.get(name) as Photo;
}

/** A visitor's own picture. */
export async function opened(file: File): Promise<Photo> {
  try {
    const bitmap = await createImageBitmap(file);
    return { name: file.name, own: false, load: async () => bitmap };
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
