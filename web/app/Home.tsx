import type { JSX } from "preact";
import { useState } from "preact/hooks";
import type { BuiltGuest } from "../model/guests.ts";
import type { KeptMachine } from "../model/machine.ts";
import { bytes } from "../model/words.ts";
import { KeptCard } from "./KeptCard.tsx";
import { useObservable } from "./observable.ts";
import { OwnImage } from "./OwnImage.tsx";
import { SettingsForm } from "./SettingsForm.tsx";
import type { PageStore } from "./store.ts";

/** What there is to boot. */
export function Home({ store }: { readonly store: PageStore }): JSX.Element {
  const { guests, kept, canKeep, persisted, choice } = useObservable(store);
  return (
    <>
      {canKeep === false && (
        <p class="banner warn">This browser keeps nothing for this page (a private window, or no https). Machines boot all the same, and are temporary.</p>
      )}
      {kept.length > 0 && (
        <section aria-labelledby="kept">
          <h2 id="kept">Your machines</h2>
          <ul class="cards wide">
            {kept.map((machine) => <li key={machine.record.id}><KeptCard store={store} kept={machine} persisted={persisted} /></li>)}
          </ul>
        </section>
      )}
      <section aria-labelledby="guests">
        <h2 id="guests">Start a machine</h2>
        {guests?.length === 0 && <NoGuests />}
        <ul class="cards">
          {guests?.map((one) => <li key={one.guest.name}><GuestCard store={store} built={one} kept={kept.find(({ record }) => record.id === `guest-${one.guest.name}`)} /></li>)}
        </ul>
      </section>
      <OwnImage store={store} />
      <SettingsForm choice={choice} onChange={(changed) => store.choose(changed)} />
    </>
  );
}

interface CardProps { readonly store: PageStore; readonly built: BuiltGuest; readonly kept: KeptMachine | undefined }

function GuestCard({ store, built, kept }: CardProps): JSX.Element {
  const { guest, bytes: size } = built, [clicked, click] = useState(false);
  const boot = (): void => {
    click(true);
    void (kept ? store.continue(kept) : store.bootGuest(built)).finally(() => click(false));
  };
  return (
    <article class="card guest">
      <h3>{guest.title}</h3>
      <p>{guest.description}</p>
      <p class="facts">{size === undefined ? guest.image : bytes(size)} · {guest.memoryMiB.default} MB RAM</p>
      <div class="actions">
        <button type="button" class={kept ? "" : "primary"} disabled={clicked} onClick={boot} aria-label={`${kept ? "Continue" : "Boot"} ${guest.title}`}>{kept ? "Continue" : "Boot"}</button>
      </div>
    </article>
  );
}

function NoGuests(): JSX.Element {
  return (
    <p class="banner">
      No guest is built on this server yet. In the project's folder, <code>bash guests/build.sh</code> builds them in under a minute
      (and the BIOS that every machine needs); then reload this page. Or use an image of your own:
    </p>
  );
}
