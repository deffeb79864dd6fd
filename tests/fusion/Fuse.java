import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Set;
import org.apache.beam.model.pipeline.v1.RunnerApi.PTransform;
import org.apache.beam.model.pipeline.v1.RunnerApi.Pipeline;
import org.apache.beam.sdk.util.construction.NativeTransforms;
import org.apache.beam.sdk.util.construction.PTransformTranslation;
import org.apache.beam.sdk.util.construction.graph.ExecutableStage;
import org.apache.beam.sdk.util.construction.graph.GreedyPipelineFuser;
import org.apache.beam.sdk.util.construction.graph.PipelineNode.PTransformNode;
import org.apache.beam.sdk.util.construction.graph.ProtoOverrides;
import org.apache.beam.sdk.util.construction.graph.QueryablePipeline;
import org.apache.beam.sdk.util.construction.graph.SplittableParDoExpander;
import org.apache.beam.sdk.util.construction.graph.TrivialNativeTransformExpander;

/**
 * Prepares pipelines as the job servers of Flink and Spark do before they run them.
 *
 * <p>Takes files that hold a pipeline each. Prints a line for each: the file's name, a tab, and
 * "fused" or the error that the job servers would give.
 */
public final class Fuse {
  /** The transforms that both job servers run themselves, in batches and in streams. */
  private static final Set<String> KNOWN =
      Set.of(
          PTransformTranslation.IMPULSE_TRANSFORM_URN,
          PTransformTranslation.GROUP_BY_KEY_TRANSFORM_URN,
          PTransformTranslation.FLATTEN_TRANSFORM_URN,
          PTransformTranslation.RESHUFFLE_URN,
          ExecutableStage.URN);

  public static void main(String[] files) throws IOException {
    for (String file : files) {
      Path path = Path.of(file);
      System.out.println(path.getFileName() + "\t" + verdict(Pipeline.parseFrom(Files.readAllBytes(path))));
    }
  }

  private static String verdict(Pipeline pipeline) {
    try {
      requireKnown(prepare(pipeline));
      return "fused";
    } catch (RuntimeException error) {
      return error.toString().replaceAll("\\s+", " ");
    }
  }

  /** As FlinkPortablePipelineTranslator.prepareForTranslation and SparkPipelineRunner.run. */
  private static Pipeline prepare(Pipeline pipeline) {
    Pipeline expanded =
        ProtoOverrides.updateTransform(
            PTransformTranslation.PAR_DO_TRANSFORM_URN,
            pipeline,
            SplittableParDoExpander.createSizedReplacement());
    Pipeline trimmed = TrivialNativeTransformExpander.forKnownUrns(expanded, KNOWN);
    return GreedyPipelineFuser.fuse(trimmed).toPipeline();
  }

  /** As the `translate` of both: every transform that is left, in the order of the data. */
  private static void requireKnown(Pipeline fused) {
    QueryablePipeline graph =
        QueryablePipeline.forTransforms(fused.getRootTransformIdsList(), fused.getComponents());
    for (PTransformNode node : graph.getTopologicallyOrderedTransforms()) {
      String urn = node.getTransform().getSpec().getUrn();
      if (!KNOWN.contains(urn)) {
        throw new IllegalArgumentException(
            String.format("Transform %s has unknown URN %s", node.getId(), urn));
      }
    }
  }

  /** Both job servers register this; without it the fuser refuses every graph with a Reshuffle. */
  public static final class NativeReshuffle implements NativeTransforms.IsNativeTransform {
    @Override
    public boolean test(PTransform transform) {
      return PTransformTranslation.RESHUFFLE_URN.equals(
          PTransformTranslation.urnForTransformOrNull(transform));
    }
  }
}
