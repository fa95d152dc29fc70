// Puts the views together and renders them when the state changes, and once a
// second for what ages.
import { html, render } from './vendor/lit-html/lit-html.js';
import { announce } from './announce.js';
import { detailsView, openDetails } from './details.js';
import { nodesView } from './nodes.js';
import { planView } from './plan.js';
import { recentView } from './recent.js';
import { drawCharts, savingsView } from './savings.js';
import { connectionView, forbiddenView, lostView, themeView, tokenView } from './session.js';
import { changed, onChange, state } from './state.js';
import { start } from './sync.js';
import { timelineView } from './timeline.js';
import { headline } from './words.js';

/** Two columns, each as long as what is in it; on a small screen the plan comes before what has ended. */
const wide = matchMedia('(min-width: 1040px)');

/** @param {string} id */
const byID = (id) => /** @type {HTMLElement} */ (document.getElementById(id));

function mainView() {
  if (state.access === 'token') return tokenView();
  if (state.access === 'forbidden') return forbiddenView();
  const words = headline(state.nodes?.value.items, state.migrations && [...state.migrations.value.values()], state.plan?.value);
  return html`
    <p class="headline" id="headline">${words || (state.connection === 'lost' ? 'The cluster is not known.' : 'Looking at the cluster.')}</p>
    ${lostView()}
    ${timelineView()}
    ${wide.matches
      ? html`<div class="columns"><div>${nodesView()}${recentView()}</div><div>${planView()}${savingsView()}</div></div>`
      : html`${nodesView()}${planView()}${recentView()}${savingsView()}`}
    ${detailsView()}`;
}

onChange(() => {
  render(html`${connectionView()}${themeView()}`, byID('controls'));
  render(mainView(), byID('main'));
  openDetails();
  drawCharts();
  announce(byID('announcements'));
});

byID('main').textContent = '';
setInterval(() => document.hidden || changed(), 1000);
addEventListener('resize', changed);
wide.addEventListener('change', changed);
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', changed);
document.addEventListener('visibilitychange', changed);
start();
