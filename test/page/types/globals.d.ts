import type uPlotClass from 'uplot';

declare global {
  /** From vendor/uplot/uPlot.iife.min.js, a classic script. */
  const uPlot: typeof uPlotClass;
}
