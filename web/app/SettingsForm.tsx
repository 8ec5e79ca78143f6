import type { JSX } from "preact";
import type { Settings } from "../model/machine.ts";
import type { Choice } from "./store.ts";

const BUSES: readonly [bus: Choice["bus"], name: string, note: string][] = [
  ["auto", "Automatic", "virtio for the machines above, IDE for your own"], ["virtio", "virtio", "faster"], ["ide", "IDE", "known to any system"],
];
const MEMORY = [32, 64, 128, 256, 512, 1024];

interface MemoryProps { readonly memory: number; readonly onChange: (memory: number) => void }

function MemorySelect({ memory, onChange }: MemoryProps): JSX.Element {
  const sizes = MEMORY.includes(memory) ? MEMORY : [...MEMORY, memory].sort((a, b) => a - b);
  return (
    <label>
      <span>Memory</span>
      <select value={memory} onChange={({ currentTarget }) => onChange(Number(currentTarget.value))}>
        {sizes.map((size) => <option key={size} value={size}>{size} MB</option>)}
      </select>
    </label>
  );
}

/** For the next new machine; a kept one goes on with its own. */
export function SettingsForm({ choice, onChange }: { readonly choice: Choice; readonly onChange: (choice: Choice) => void }): JSX.Element {
  return (
    <section aria-labelledby="settings">
      <h2 id="settings">Settings for a new machine</h2>
      <form class="card settings" onSubmit={(event) => event.preventDefault()}>
        <MemorySelect memory={choice.memory} onChange={(memory) => onChange({ ...choice, memory })} />
        <fieldset>
          <legend>Disk bus</legend>
          {BUSES.map(([bus, name, note]) => (
            <label key={bus}><input type="radio" name="bus" checked={choice.bus === bus} onChange={() => onChange({ ...choice, bus })} /> {name} <small>{note}</small></label>
          ))}
        </fieldset>
      </form>
    </section>
  );
}

/** For the next boot of a kept machine. */
export function KeptSettings({ settings, onChange }: { readonly settings: Settings; readonly onChange: (settings: Settings) => void }): JSX.Element {
  return (
    <div class="kept-settings">
      <MemorySelect memory={settings.memory} onChange={(memory) => onChange({ ...settings, memory })} />
      <label>
        <span>Disk bus</span>
        <select value={settings.bus} onChange={({ currentTarget }) => onChange({ ...settings, bus: currentTarget.value === "ide" ? "ide" : "virtio" })}>
          <option value="virtio">virtio</option>
          <option value="ide">IDE</option>
        </select>
      </label>
    </div>
  );
}
