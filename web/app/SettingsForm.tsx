import type { JSX } from "preact";
import type { Settings } from "../model/machine.ts";

const MEMORY = [32, 64, 128, 256, 512, 1024];

interface Props { readonly settings: Settings; readonly onChange: (settings: Settings) => void }

/** For the next machine that is started. */
export function SettingsForm({ settings, onChange }: Props): JSX.Element {
  return (
    <section aria-labelledby="settings">
      <h2 id="settings">Settings</h2>
      <form class="card settings" onSubmit={(event) => event.preventDefault()}>
        <label>
          <span>Memory</span>
          <select value={settings.memory} onChange={({ currentTarget }) => onChange({ ...settings, memory: Number(currentTarget.value) })}>
            {MEMORY.map((size) => <option key={size} value={size}>{size} MB</option>)}
          </select>
        </label>
        <fieldset>
          <legend>Disk bus</legend>
          <label><input type="radio" name="bus" checked={settings.bus === "virtio"} onChange={() => onChange({ ...settings, bus: "virtio" })} /> virtio <small>faster; Linux and BSD</small></label>
          <label><input type="radio" name="bus" checked={settings.bus === "ide"} onChange={() => onChange({ ...settings, bus: "ide" })} /> IDE <small>any system</small></label>
        </fieldset>
      </form>
    </section>
  );
}
