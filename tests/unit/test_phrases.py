"""Sentences as they stand in reports: what the guardrails flag in each language, and what they let pass."""

import numpy as np
import pytest

from tests.unit.checked import GENERAL, flags
from worker import protocols
from worker.phantom.anatomy import report, sample
from worker.phrases import PHRASES
from worker.prompting import ReadingContext

WOMAN = ReadingContext(patient_age="061Y", patient_sex="F", modality="CR")
MAN = ReadingContext(patient_age="061Y", patient_sex="M", modality="CR")
CHILD = ReadingContext(patient_age="007Y", patient_sex="M", modality="CR")
YOUNG = ReadingContext(patient_age="025Y", patient_sex="F", modality="CR")
CT = ReadingContext(patient_age="061Y", patient_sex="F", modality="CT")
MR = ReadingContext(patient_age="061Y", patient_sex="M", modality="MR")
US = ReadingContext(patient_age="061Y", patient_sex="M", modality="US")
NM = ReadingContext(patient_age="061Y", patient_sex="M", modality="NM")
GIVEN = ReadingContext(patient_age="061Y", patient_sex="F", modality="CT", contrast=True, prior_report="Clear lungs.")
LEFT = ReadingContext(patient_age="061Y", patient_sex="F", modality="CR", laterality="L")
RIGHT = ReadingContext(patient_age="061Y", patient_sex="F", modality="CR", laterality="R")
SOUND_REPORT = "Findings: There is an opacity in the left upper zone. The heart size is normal.\nImpression: Opacity in the left upper zone."
EVERY_CHECK = GENERAL.model_copy(update={"checks": tuple(sorted(protocols.CHECKS))})
AS_DESCRIBED = {"en": "As described above.", "es": "Hallazgos descritos arriba.", "zh": "如上所述。"}

ODD = {
    "en": [
        ("prior", WOMAN, "The opacity is unchanged."),
        ("prior", WOMAN, "The effusion is larger compared with the radiograph of 3 March."),
        ("prior", WOMAN, "No change from the prior study."),
        ("prior", WOMAN, "No new consolidation is seen."),
        ("prior", WOMAN, "The pneumothorax has resolved."),
        ("prior", WOMAN, "The heart remains stable."),
        ("measurement", WOMAN, "A nodule of 12 x 8 mm lies in the left upper zone."),
        ("measurement", WOMAN, "There is a 2-cm mass."),
        ("measurement", WOMAN, "The lesion is about two centimeters across."),
        ("measurement", CT, "Its density is -10 HU."),
        ("measurement", CT, "The aorta is 3.5 centimetres wide."),
        ("sex", WOMAN, "The prostate is enlarged."),
        ("sex", WOMAN, "His lungs are clear."),
        ("sex", MAN, "The uterus is anteverted."),
        ("sex", MAN, "The patient is a woman with clear lungs."),
        ("age", WOMAN, "A 12-year-old with clear lungs."),
        ("age", WOMAN, "A patient aged 30 with clear lungs."),
        ("age", WOMAN, "A 6-month-old with clear lungs."),
        ("age", WOMAN, "The lungs of this infant are clear."),
        ("age", YOUNG, "An elderly patient with a clear chest."),
        ("contrast", CT, "Contrast-enhanced images show no embolus."),
        ("contrast", CT, "Images without and with contrast were obtained."),
        ("contrast", MR, "There is a ring-enhancing lesion."),
        ("contrast", MR, "No abnormal enhancement is seen."),
        ("contrast", CT, "In the portal venous phase the liver is homogeneous."),
        ("modality", WOMAN, "This MRI shows a clear lung."),
        ("modality", WOMAN, "The lesion is hypoechoic."),
        ("modality", CT, "The radiograph shows clear lungs."),
        ("modality", MR, "The CT shows no haemorrhage."),
        ("modality", US, "A T2-weighted sequence shows the gallbladder."),
        ("meta_talk", WOMAN, "As an AI I see clear lungs."),
        ("meta_talk", WOMAN, "I cannot provide a diagnosis."),
        ("meta_talk", WOMAN, "As a large language model it is limited."),
        ("meta_talk", WOMAN, "Please consult a qualified radiologist."),
        ("prior", WOMAN, "The effusion has increased."),
        ("prior", WOMAN, "The opacity has increased in size, follow-up is recommended."),
        ("prior", CT, "The nodule is larger than on the previous CT."),
        ("sex", MAN, "Her lungs are clear."),
        ("contrast", CT, "The mass shows rim enhancement, biopsy is advised."),
        ("measurement", WOMAN, "Half an inch of air is seen."),
        ("meta_talk", WOMAN, "The lungs are clear, but I am not able to see the apices."),
    ],
    "es": [
        ("prior", WOMAN, "La opacidad permanece estable."),
        ("prior", WOMAN, "En comparación con el estudio previo, el derrame es mayor."),
        ("prior", WOMAN, "Aumento del derrame respecto a estudio previo."),
        ("prior", WOMAN, "Sin cambios significativos respecto al control anterior."),
        ("prior", WOMAN, "Opacidad basal izquierda, sin cambios."),
        ("prior", WOMAN, "No hay cambios respecto a la radiografía anterior."),
        ("prior", WOMAN, "El neumotórax ha disminuido."),
        ("prior", WOMAN, "Opacidad de nueva aparición en el lóbulo superior."),
        ("prior", WOMAN, "Persiste el derrame pleural izquierdo."),
        ("measurement", WOMAN, "Nódulo de 12 x 8 mm en el lóbulo superior izquierdo."),
        ("measurement", WOMAN, "Masa de 2,5 centímetros."),
        ("measurement", CT, "Lesión con densidad de 45 UH."),
        ("measurement", WOMAN, "Nódulo de unos cinco milímetros."),
        ("sex", WOMAN, "Próstata aumentada de tamaño."),
        ("sex", WOMAN, "Varón con campos pulmonares bien ventilados."),
        ("sex", MAN, "Útero en anteversión."),
        ("sex", MAN, "Mujer con campos pulmonares bien ventilados."),
        ("sex", MAN, "Ovarios de aspecto habitual."),
        ("age", WOMAN, "Paciente de 45 años con tos."),
        ("age", WOMAN, "Paciente de 30 años de edad."),
        ("age", WOMAN, "Lactante de 6 meses de edad."),
        ("age", WOMAN, "Tórax de un niño con buena aireación."),
        ("age", YOUNG, "Tórax de anciana."),
        ("contrast", CT, "Se realiza estudio con contraste intravenoso."),
        ("contrast", CT, "Tras la administración de contraste la lesión es homogénea."),
        ("contrast", MR, "Lesión con realce anular."),
        ("contrast", MR, "Lesión sin realce."),
        ("contrast", CT, "En fase arterial el hígado es homogéneo."),
        ("modality", CT, "La radiografía muestra campos pulmonares aireados."),
        ("modality", WOMAN, "La tomografía muestra campos pulmonares aireados."),
        ("modality", WOMAN, "En la RM se observa un hígado homogéneo."),
        ("modality", WOMAN, "Lesión hipoecoica en el lóbulo hepático."),
        ("modality", US, "Lesión hiperintensa en T2."),
        ("modality", MR, "En la placa de tórax se observa buena aireación."),
        ("meta_talk", WOMAN, "Como modelo de lenguaje, describo las imágenes."),
        ("meta_talk", WOMAN, "Lo siento, la imagen es borrosa."),
        ("meta_talk", WOMAN, "No puedo ofrecer un diagnóstico."),
        ("meta_talk", WOMAN, "Consulte a su médico."),
        ("prior", WOMAN, "Derrame mayor que en el estudio de fecha 3/2/2021."),
        ("prior", WOMAN, "Crecimiento respecto a la previa, se recomienda biopsia."),
        ("prior", WOMAN, "Comparado con la radiografía de tórax anterior, hay mejoría."),
        ("sex", MAN, "Paciente femenina con buena aireación."),
        ("contrast", CT, "Captación de contraste periférica, se recomienda biopsia."),
        ("prior", WOMAN, "Derrame mayor que en la radiografía realizada el 3 de marzo."),
        ("prior", WOMAN, "Hallazgos similares al estudio previo."),
    ],
    "zh": [
        ("prior", WOMAN, "左肺斑片影较前吸收。"),
        ("prior", WOMAN, "与前片比较，心影大小相仿。"),
        ("prior", WOMAN, "对比前次检查，左侧胸腔积液增多。"),
        ("prior", WOMAN, "左肺结节未见明显变化。"),
        ("prior", WOMAN, "右肺新发结节影。"),
        ("prior", WOMAN, "病灶大小稳定。"),
        ("measurement", WOMAN, "左肺上叶见一枚12mm结节影。"),
        ("measurement", WOMAN, "肿块大小约3.5×2.8厘米。"),
        ("measurement", WOMAN, "结节直径约五毫米。"),
        ("measurement", CT, "病灶CT值约45HU。"),
        ("sex", WOMAN, "前列腺增大。"),
        ("sex", WOMAN, "患者男性，心影呈主动脉型。"),
        ("sex", MAN, "子宫体积增大。"),
        ("sex", MAN, "女性患者，心影呈主动脉型。"),
        ("age", WOMAN, "患者45岁，心影呈主动脉型。"),
        ("age", WOMAN, "6个月婴儿胸部所见。"),
        ("age", WOMAN, "新生儿胸部所见。"),
        ("age", YOUNG, "老年性脑改变。"),
        ("contrast", CT, "增强扫描后病灶呈环形改变。"),
        ("contrast", CT, "病灶明显强化。"),
        ("contrast", MR, "病灶未见强化。"),
        ("contrast", CT, "动脉期肝实质密度均匀。"),
        ("contrast", CT, "平扫加增强检查。"),
        ("modality", CT, "胸片示心影呈主动脉型。"),
        ("modality", WOMAN, "胸部CT示心影呈主动脉型。"),
        ("modality", CT, "X线示心影呈主动脉型。"),
        ("modality", WOMAN, "肝内见低回声区。"),
        ("modality", US, "肝内见长T2信号区。"),
        ("modality", CT, "磁共振示脑实质信号均匀。"),
        ("modality", MR, "B超示肝实质均匀。"),
        ("meta_talk", WOMAN, "作为AI，我描述这些图像。"),
        ("meta_talk", WOMAN, "作为一个人工智能助手，仅描述图像。"),
        ("meta_talk", WOMAN, "抱歉，图像模糊。"),
        ("meta_talk", WOMAN, "我无法给出诊断。"),
        ("meta_talk", WOMAN, "以上分析仅供参考。"),
        ("prior", WOMAN, "与前片对比右肺结节增大，建议随访。"),
        ("prior", CT, "与既往CT比较，病灶增多。"),
        ("prior", WOMAN, "左侧胸腔积液大致同前。"),
        ("contrast", CT, "病灶环形强化，建议穿刺活检。"),
        ("contrast", CT, "行增强后肝实质均匀。"),
        ("sex", MAN, "双侧附件区见囊性灶。"),
        ("prior", WOMAN, "病灶未见明显改变。"),
    ],
}
SOUND = {
    "en": [
        (WOMAN, "No prior study is available for comparison."),
        (WOMAN, "Prior radiographs were not available."),
        (WOMAN, "Stability cannot be determined without a prior examination."),
        (WOMAN, "Comparison with prior imaging is recommended."),
        (WOMAN, "The left lung is small compared with the right."),
        (WOMAN, "The patient has had previous surgery."),
        (MR, "The lesion is dark compared with muscle."),
        (WOMAN, "There are 12 ribs on each side."),
        (WOMAN, "The L4 and L5 vertebral bodies are of normal height."),
        (WOMAN, "The uterus is not seen."),
        (MAN, "The cervical canal is narrow."),
        (MAN, "The tunica vaginalis is thin."),
        (WOMAN, "The bundle of His cannot be assessed."),
        (WOMAN, "A 61-year-old with clear lungs."),
        (WOMAN, "A 20-year history of smoking shows."),
        (WOMAN, "A Child-Pugh score cannot be given."),
        (CHILD, "The chest of this child is clear."),
        (CHILD, "A 7-year-old with clear lungs."),
        (WOMAN, "Non-contrast images show no bleeding."),
        (CT, "Images were obtained without intravenous contrast."),
        (CT, "Contrast was not given."),
        (CT, "A contrast-enhanced CT is recommended."),
        (MR, "There is good contrast between grey and white matter."),
        (US, "There is posterior acoustic enhancement."),
        (GIVEN, "In the arterial phase the mass enhances, unchanged from the prior study."),
        (WOMAN, "The CT ratio is normal."),
        (WOMAN, "CT is recommended for further evaluation."),
        (WOMAN, "Mr. Smith's film is well exposed.".replace("Mr. Smith's", "This")),
        (NM, "The CT shows no fracture."),
        (WOMAN, "Type I cannot be told from type II."),
        (WOMAN, "Salter-Harris type I cannot be excluded."),
        (WOMAN, "Stenosis of grade I cannot be seen."),
        (WOMAN, "No displaced rib is seen."),
        (WOMAN, "The lung has increased markings."),
        (WOMAN, "The opacity extends from the last rib."),
        (WOMAN, "Changes are consistent with prior granulomatous infection."),
        (WOMAN, "Follow-up is advised, and if available prior films should be compared."),
        (WOMAN, "There are 2 CC views."),
        (WOMAN, "The tumour is HER-2 positive."),
        (US, "Through-transmission shows acoustic enhancement."),
        (WOMAN, "Both the frontal and lateral views are well exposed."),
        (WOMAN, "The heart is small compared with the lungs."),
    ],
    "es": [
        (WOMAN, "No se dispone de estudios previos para comparar."),
        (WOMAN, "Sin estudios previos disponibles."),
        (WOMAN, "Se recomienda comparar con estudios previos."),
        (WOMAN, "Sin cambios degenerativos."),
        (WOMAN, "No se observan cambios inflamatorios."),
        (WOMAN, "La pared anterior del tórax es simétrica."),
        (WOMAN, "El mediastino anterior es de aspecto habitual."),
        (WOMAN, "El hemidiafragma derecho es más alto respecto al izquierdo."),
        (WOMAN, "Se cuentan 12 costillas en cada lado."),
        (WOMAN, "Cuerpos vertebrales L4 y L5 de altura conservada."),
        (WOMAN, "No se observa el útero."),
        (MAN, "El canal cervical es estrecho."),
        (MAN, "Articulación del hombro congruente."),
        (WOMAN, "Paciente de 61 años con tos."),
        (WOMAN, "Tabaquismo de 20 años de evolución."),
        (WOMAN, "Cirugía de hace 10 años."),
        (CHILD, "Niño de 7 años con buena aireación."),
        (CT, "Se realiza estudio sin contraste."),
        (CT, "Estudio simple, sin administración de contraste intravenoso."),
        (CT, "No se ha administrado contraste."),
        (CT, "Se recomienda TC con contraste."),
        (US, "Realce acústico posterior."),
        (GIVEN, "Tras la administración de contraste el realce es homogéneo, sin cambios respecto al estudio previo."),
        (MR, "Placas de ateroma en la carótida."),
        (CT, "Placas pleurales en ambas bases."),
        (MR, "Placa de osteosíntesis en el fémur."),
        (WOMAN, "La radiografía de tórax muestra buena aireación."),
        (WOMAN, "Se sugiere completar con TC."),
        (NM, "La radiografía muestra buena aireación."),
        (WOMAN, "No se puede descartar una fisura costal."),
        (WOMAN, "Imagen nodular en el mediastino anterior."),
        (MR, "RM de la cara anterior del muslo."),
        (WOMAN, "Radiografía de 2 proyecciones."),
        (CT, "TC de 64 detectores."),
        (WOMAN, "Edad ósea de 12 años."),
        (WOMAN, "Radiografía anteroposterior de la mano."),
        (MAN, "Túnica vaginal delgada."),
        (WOMAN, "Se recomienda TC con contraste y comparar con estudios anteriores."),
        (WOMAN, "Estudio realizado en bipedestación."),
    ],
    "zh": [
        (WOMAN, "无前片对比。"),
        (WOMAN, "未提供既往影像资料，无法比较。"),
        (WOMAN, "请结合既往影像检查。"),
        (WOMAN, "建议复查。"),
        (WOMAN, "左侧膈面较对侧抬高。"),
        (WOMAN, "纵隔前缘光整。"),
        (WOMAN, "左侧第5肋骨走行自然。"),
        (WOMAN, "心胸比约0.5。"),
        (WOMAN, "子宫未见显示。"),
        (MAN, "椎体及附件骨质完整。"),
        (MAN, "颈动脉内膜光整。"),
        (MR, "胎儿型大脑后动脉。"),
        (WOMAN, "患者61岁，心影呈主动脉型。"),
        (WOMAN, "50岁以上人群常见。"),
        (CHILD, "儿童胸部，心影大小正常。"),
        (CT, "本次未行增强扫描。"),
        (CT, "建议增强扫描进一步检查。"),
        (CT, "未使用对比剂。"),
        (US, "后方回声增强。"),
        (GIVEN, "增强扫描病灶明显强化，较前增大。"),
        (WOMAN, "胸片示心影呈主动脉型。"),
        (WOMAN, "必要时行CT检查。"),
        (MR, "T1椎体信号均匀。"),
        (NM, "胸部CT示心影呈主动脉型。"),
        (WOMAN, "双肺未见实质性病变，纵隔居中。"),
        (WOMAN, "双肺纹理增强，肺门居中。"),
        (WOMAN, "椎体骨质未见明显改变。"),
        (WOMAN, "骨龄12岁。"),
        (WOMAN, "改变与既往外伤有关。"),
        (WOMAN, "左肺结节，建议CT增强扫描并与前片比较。"),
        (MR, "脑实质内未见异常信号。"),
        (WOMAN, "心脏左右径在正常范围。"),
        (WOMAN, "右侧膈肌较左侧抬高，腰椎退行性变。"),
    ],
}


def of_language(language, findings, impression=None, context=WOMAN):
    text = f"Findings: {findings}\nImpression: {impression or AS_DESCRIBED[language]}"
    return flags(text, context=context, protocol=EVERY_CHECK, language=language)


@pytest.mark.parametrize(
    ("language", "name", "context", "sentence"), [(lang, *row) for lang, rows in ODD.items() for row in rows]
)
def test_an_odd_sentence_is_flagged_in_each_language_and_for_nothing_else(language, name, context, sentence):
    assert of_language(language, sentence, context=context) == {(name, "findings-m1")}


@pytest.mark.parametrize(
    ("language", "context", "sentence"), [(lang, *row) for lang, rows in SOUND.items() for row in rows]
)
def test_a_sound_sentence_raises_no_false_alarm_in_any_language(language, context, sentence):
    assert of_language(language, sentence, context=context) == set()


@pytest.mark.parametrize(
    ("language", "findings", "impression"),
    [
        ("en", "There is a left pleural effusion without pneumothorax.", "Right pleural effusion."),
        ("en", "The right lung is clear, but there is an opacity on the left.", "Opacity on the right."),
        ("en", "Left-sided effusion.", "Bilateral effusions."),
        ("es", "Derrame pleural izquierdo, sin neumotórax.", "Derrame pleural derecho."),
        (
            "es",
            "Pulmón derecho sin alteraciones, pero se observa una opacidad en la base izquierda.",
            "Opacidad derecha.",
        ),
        ("es", "Opacidad en el hemitórax izquierdo.", "Opacidades bilaterales."),
        ("es", "Fractura de la muñeca izq. Partes blandas normales.", "Fractura de la muñeca derecha."),
        ("zh", "左肺上叶见结节影，边界清晰，右肺未见异常。", "右肺上叶结节。"),
        ("zh", "左侧胸腔积液，未见气胸。", "双侧胸腔积液。"),
        ("zh", "右肺清晰，左肺下叶见斑片影。", "右肺下叶肺炎。"),
        ("zh", "左肾见结石影。", "两侧肾结石。"),
        ("zh", "左肺见斑片影。", "左右肺炎症。"),
        ("en", "Left upper lobe nodule.", "Right upper lobe nodule, CT is recommended."),
        ("en", "Effusion which is left-sided.", "The effusion is right-sided."),
        ("es", "Nódulo pulmonar izquierdo.", "Nódulo pulmonar derecho, se recomienda TC."),
        ("zh", "左肺上叶结节。", "右肺上叶结节，建议CT检查。"),
    ],
)
def test_the_impression_on_another_side_is_flagged_in_each_language(language, findings, impression):
    assert of_language(language, findings, impression) == {("laterality", "impression-m1")}


@pytest.mark.parametrize(
    ("language", "findings", "impression"),
    [
        ("en", "There is a left effusion.", "Left effusion; the right lung is clear."),
        ("en", "Bilateral effusions.", "Right effusion."),
        ("en", "Both lungs show opacities.", "Left basal opacity."),
        ("en", "There is a left effusion on both views.", "Left effusion."),
        ("en", "There is a left effusion, on the right side of the picture.", "Left effusion."),
        ("en", "There is a left effusion.", "Left effusion. CT of the right side may be considered."),
        ("es", "Derrame pleural izquierdo.", "Derrame pleural izquierdo; sin derrame derecho."),
        ("es", "Derrame en ambos hemitórax.", "Derrame derecho."),
        ("es", "Opacidades bilaterales.", "Opacidad izquierda."),
        ("es", "Derrame izquierdo en ambas proyecciones.", "Derrame izquierdo."),
        ("zh", "左肺见结节影。", "左肺结节，右肺未见异常。"),
        ("zh", "双肺见斑片影。", "右肺炎症。"),
        ("zh", "两侧胸腔积液。", "左侧胸腔积液。"),
        ("zh", "左肺见结节影，左右径大于上下径。", "左肺结节。"),
        ("zh", "取右侧卧位，左肺见结节影。", "左肺结节。"),
    ],
)
def test_sides_that_agree_are_not_flagged_in_any_language(language, findings, impression):
    assert of_language(language, findings, impression) == set()


@pytest.mark.parametrize(
    ("language", "context", "sentence"),
    [
        ("en", LEFT, "The right wrist shows a fracture."),
        ("en", LEFT, "No fracture of the right wrist."),
        ("en", RIGHT, "Dislocation of the left shoulder."),
        ("es", LEFT, "Muñeca derecha sin fracturas."),
        ("es", RIGHT, "Fractura del hombro izquierdo."),
        ("zh", LEFT, "右腕关节未见骨折。"),
        ("zh", RIGHT, "左肩关节脱位。"),
    ],
)
def test_a_side_that_was_not_examined_is_flagged_in_each_language(language, context, sentence):
    assert of_language(language, sentence, context=context) == {("laterality", "findings-m1")}


@pytest.mark.parametrize(
    ("language", "context", "sentence"),
    [
        ("en", LEFT, "All right, the wrist joint is congruent."),
        ("en", LEFT, "The view is taken at a right angle."),
        ("en", RIGHT, "The soft tissues are left in place."),
        ("en", LEFT, "Left wrist, compared with the right side."),
        ("en", LEFT, "A radiograph of the right wrist is recommended."),
        ("es", LEFT, "Fractura de la muñeca izquierda."),
        ("es", LEFT, "Se recomienda radiografía de la muñeca derecha."),
        ("es", RIGHT, "Ambas muñecas son simétricas."),
        ("zh", LEFT, "左腕关节骨折。"),
        ("zh", RIGHT, "建议左侧对照摄片。"),
        ("zh", RIGHT, "取左侧位，关节间隙均匀。"),
    ],
)
def test_the_side_that_was_examined_and_words_that_are_no_side_are_not_flagged(language, context, sentence):
    assert of_language(language, sentence, context=context) == set()


@pytest.mark.parametrize(
    ("language", "findings", "impression"),
    [
        ("en", "There is a pleural effusion without pneumothorax.", "No acute abnormality."),
        ("en", "The heart is enlarged.", "Normal chest radiograph."),
        ("en", "Apart from a basal consolidation, the lungs are clear.", "Normal."),
        ("en", "The lungs are clear. The heart is of normal size.", "Pleural effusion."),
        ("es", "Derrame pleural, sin neumotórax.", "Sin hallazgos patológicos."),
        ("es", "Consolidación basal.", "Radiografía de tórax normal."),
        ("es", "No se observan fracturas, pero hay un hematoma.", "Estudio dentro de la normalidad."),
        ("es", "Campos pulmonares libres. Silueta cardíaca normal.", "Neumonía basal."),
        ("zh", "左肺见斑片影，未见胸腔积液。", "胸部未见明显异常。"),
        ("zh", "心影增大。", "心肺未见异常。"),
        ("zh", "肋骨骨折，断端对位可。", "胸片正常。"),
        ("zh", "双肺清晰，心影大小正常。", "左肺炎症。"),
        ("en", "A 61-year-old with consolidation.", "No acute abnormality. CT is recommended."),
        ("es", "Derrame pleural.", "Sin hallazgos patológicos; se recomienda control."),
        ("zh", "左肺见斑片影。", "胸部未见明显异常，建议随访。"),
    ],
)
def test_findings_and_impression_that_contradict_each_other_are_flagged_in_each_language(
    language, findings, impression
):
    assert of_language(language, findings, impression) == {("contradiction", "impression-m1")}


@pytest.mark.parametrize(
    ("language", "findings", "impression"),
    [
        ("en", "No consolidation, effusion or pneumothorax.", "No acute abnormality."),
        ("en", "There is an old healed rib fracture.", "No acute abnormality."),
        ("en", "There is a joint effusion.", "No acute fracture. Joint effusion."),
        ("en", "Basal opacity, otherwise normal lungs.", "Basal opacity."),
        ("en", "There is a basal opacity.", "No acute abnormality apart from a basal opacity."),
        ("es", "No se observan consolidaciones, derrame ni neumotórax.", "Sin hallazgos patológicos."),
        ("es", "Fractura costal antigua consolidada.", "Sin hallazgos agudos."),
        ("es", "No se puede descartar una fractura.", "Posible fractura."),
        ("es", "Opacidad basal, por lo demás normal.", "Opacidad basal."),
        ("zh", "未见骨折，脱位征象。", "未见明显异常。"),
        ("zh", "肋骨陈旧骨折。", "未见急性异常。"),
        ("zh", "双肺未见结节、肿块及实变影，胸腔无积液。", "胸部未见异常。"),
        ("zh", "不能除外骨折。", "骨折待排。"),
        ("zh", "左肺见边界清晰的结节影。", "左肺结节。"),
        ("zh", "影像不支持肺炎。", "胸部未见异常。"),
    ],
)
def test_findings_and_impression_that_agree_are_not_flagged_in_any_language(language, findings, impression):
    assert of_language(language, findings, impression) == set()


@pytest.mark.parametrize(
    ("comparison", "expected"), [("Chest radiograph of 3 March 2021.", {("prior", "comparison-m1")}), ("None.", set())]
)
def test_an_examination_named_under_comparison_is_made_up(comparison, expected):
    assert flags(f"Comparison: {comparison}\n{SOUND_REPORT}") == expected


def test_what_was_told_may_speak_of_other_examinations():
    told = "Clinical information: Nodule on a prior CT."
    assert flags(f"{told}\n{SOUND_REPORT}", protocol=EVERY_CHECK) == set()


ENGLISH = "There is an opacity in the left upper zone and the heart is not enlarged."
SPANISH = "Se observa una opacidad en el campo superior del pulmón izquierdo."
CHINESE = "左肺上叶见斑片状密度增高影，心影未见增大。"


@pytest.mark.parametrize(
    ("language", "findings", "impression", "expected"),
    [
        ("es", ENGLISH, "Opacity in the left upper zone.", None),
        ("zh", ENGLISH, "Opacity in the left upper zone.", None),
        ("zh", "Left upper zone opacity. Normal heart size. Sharp costophrenic angles.", "Opacity.", None),
        ("en", SPANISH, "Opacidad en el campo superior.", None),
        ("zh", SPANISH, "Opacidad en el campo superior.", None),
        ("en", CHINESE, "左肺上叶炎症。", None),
        ("es", CHINESE, "左肺上叶炎症。", None),
        ("es", f"{SPANISH} {SPANISH[:-1]} y en la base del mismo. {ENGLISH}", SPANISH, "findings-m3"),
        ("en", f"{ENGLISH} There is no effusion on the left or the right. {CHINESE}", ENGLISH, "findings-m3"),
        ("zh", f"{CHINESE}双侧肋膈角锐利，膈面光整，纵隔居中。左肺门影增浓。{ENGLISH}", CHINESE * 2, "findings-m4"),
    ],
)
def test_an_answer_in_another_language_than_asked_for_is_flagged(language, findings, impression, expected):
    assert ("language", expected) in of_language(language, findings, impression)


@pytest.mark.parametrize(
    ("language", "findings", "impression"),
    [
        ("en", ENGLISH, "Opacity in the left upper zone."),
        ("es", SPANISH, "Opacidad en el campo superior izquierdo."),
        ("zh", CHINESE, "左肺上叶炎症。"),
        ("zh", "胸部CT（HRCT, lung window）示左肺GGO。", "左肺GGO。"),
        ("en", "No focal consolidation.", "Normal."),
        ("es", "Normal.", "Normal."),
        ("en", "Clear lungs. Sharp angles.", "Status after cholecystectomy, en bloc resection, de novo lesion, et al."),
        (None, SPANISH, "Opacidad en el campo superior izquierdo."),
        (None, CHINESE, "左肺上叶炎症。"),
    ],
)
def test_an_answer_in_the_language_or_too_short_to_tell_is_not_flagged(language, findings, impression):
    text = f"Findings: {findings}\nImpression: {impression}"
    assert "language" not in {n for n, _ in flags(text, protocol=EVERY_CHECK, language=language)}


def test_an_answer_in_the_wrong_language_is_still_held_against_what_it_says():
    found = of_language("es", "The opacity is unchanged and there is a nodule of 12 mm in the left lung.", ENGLISH)
    assert {("language", None), ("prior", "findings-m1"), ("measurement", "findings-m1")} <= found


@pytest.mark.parametrize("language", sorted(PHRASES))
def test_every_language_looks_for_the_same_families_of_modalities(language):
    assert set(PHRASES[language].modalities) == set(PHRASES["en"].modalities)


@pytest.mark.parametrize(
    ("language", "modality", "text"),
    [
        (
            "en",
            "CR",
            (
                "Findings: The cardiomediastinal silhouette is within normal limits. The lungs are clear bilaterally without focal consolidation, pleural effusion or pneumothorax. No acute osseous abnormality is seen.\n"
                "Impression: No acute cardiopulmonary process."
            ),
        ),
        (
            "en",
            "CR",
            (
                "Findings: There is mild cardiomegaly with bilateral interstitial opacities and small bilateral pleural effusions, right greater than left. No pneumothorax.\n"
                "Impression: Findings consistent with pulmonary edema. Small bilateral pleural effusions."
            ),
        ),
        (
            "en",
            "CR",
            (
                "Findings: Endotracheal tube tip projects above the carina. Patchy airspace opacity is seen in the right lower lobe. The left lung is clear. The visualized upper abdomen is unremarkable.\n"
                "Impression: Right lower lobe airspace opacity, which may represent pneumonia in the appropriate clinical setting. Recommend follow-up radiographs to ensure resolution."
            ),
        ),
        (
            "en",
            "CR",
            (
                "Findings: The lungs are hyperinflated with flattening of the diaphragms, in keeping with COPD. There is a rounded density projecting over the left hilum. Degenerative changes of the thoracic spine.\n"
                "Impression: Left hilar density; contrast-enhanced CT of the chest is recommended for further characterization."
            ),
        ),
        (
            "en",
            "CR",
            (
                "Findings: Scoliosis convex to the right. Old healed fractures of the left 5th and 6th ribs. Sternotomy wires are intact.\n"
                "Impression: No acute cardiopulmonary abnormality."
            ),
        ),
        (
            "en",
            "CR",
            (
                "Findings: No displaced fracture. Joint spaces are preserved. There is soft tissue swelling over the lateral malleolus.\n"
                "Impression: Soft tissue swelling without fracture. If symptoms persist, repeat radiographs may be obtained."
            ),
        ),
        (
            "es",
            "CR",
            (
                "Hallazgos: Silueta cardiomediastínica de tamaño y morfología normales. Campos pulmonares bien aireados, sin consolidaciones, derrame pleural ni neumotórax. Estructuras óseas sin alteraciones.\n"
                "Impresión: Estudio dentro de límites normales."
            ),
        ),
        (
            "es",
            "CR",
            (
                "Hallazgos: Cardiomegalia leve con redistribución vascular. Derrame pleural bilateral de pequeña cuantía, de predominio derecho. No se observa neumotórax.\n"
                "Impresión: Hallazgos compatibles con insuficiencia cardíaca congestiva. Derrame pleural bilateral."
            ),
        ),
        (
            "es",
            "CR",
            (
                "Hallazgos: Opacidad alveolar en el lóbulo inferior derecho, con broncograma aéreo. Pulmón izquierdo libre. Senos costofrénicos libres.\n"
                "Impresión: Opacidad en lóbulo inferior derecho sugestiva de neumonía. Se recomienda control radiográfico en 4-6 semanas."
            ),
        ),
        (
            "es",
            "CR",
            (
                "Hallazgos: Escoliosis dorsal de convexidad derecha. Fracturas antiguas de arcos costales izquierdos. Ateromatosis aórtica calcificada.\n"
                "Impresión: Sin hallazgos de patología aguda."
            ),
        ),
        (
            "es",
            "CR",
            (
                "Hallazgos: No se identifican líneas de fractura. Espacios articulares conservados. Aumento de partes blandas en la cara anterior del tobillo.\n"
                "Impresión: Aumento de partes blandas sin fractura. Si persiste la clínica, valorar RM."
            ),
        ),
        (
            "zh",
            "CR",
            (
                "影像所见：胸廓对称，气管居中，纵隔无偏移。双肺纹理清晰，未见明显实质性病变。双肺门影不大。心影大小、形态未见异常。双侧膈面光整，肋膈角锐利。\n"
                "诊断意见：心肺膈未见明显异常。"
            ),
        ),
        (
            "zh",
            "CR",
            (
                "影像所见：双肺纹理增多、紊乱，右肺下野见斑片状密度增高影，边缘模糊。左肺野清晰。心影不大，主动脉结突出。右侧肋膈角变钝，左侧肋膈角锐利。\n"
                "诊断意见：1.右肺下野炎症可能，建议治疗后复查。2.右侧少量胸腔积液。"
            ),
        ),
        (
            "zh",
            "CR",
            (
                "影像所见：左侧锁骨中段骨皮质不连续，断端错位，周围软组织肿胀。余骨质未见异常。关节间隙未见增宽或狭窄。\n"
                "诊断意见：左侧锁骨骨折。"
            ),
        ),
        (
            "zh",
            "CR",
            (
                "影像所见：双肺透亮度增高，肋间隙增宽，膈肌低平。右上肺见条索状、斑点状高密度影，边界清。心影狭长。\n"
                "诊断意见：1、慢性支气管炎、肺气肿。2、右上肺陈旧性结核灶。"
            ),
        ),
        (
            "zh",
            "CR",
            (
                "影像所见：胸椎轻度侧弯，两侧胸廓不对称。左侧第6、7肋陈旧性骨折。主动脉壁钙化。\n"
                "诊断意见：胸部未见急性病变。"
            ),
        ),
        (
            "en",
            "CT",
            (
                "Findings: CT head without contrast. There is a hyperdense collection along the left cerebral convexity with midline shift to the right. Ventricles are effaced. No fracture.\n"
                "Impression: Left subdural hematoma with rightward midline shift."
            ),
        ),
        (
            "es",
            "CT",
            (
                "Hallazgos: TC craneal sin contraste. Colección hiperdensa en la convexidad izquierda que desplaza la línea media hacia la derecha.\n"
                "Impresión: Hematoma subdural izquierdo."
            ),
        ),
        (
            "zh",
            "CT",
            (
                "影像所见：左侧额颞顶部颅骨内板下见新月形高密度影，中线结构右移。右侧脑室扩大。\n"
                "诊断意见：左侧硬膜下血肿，建议MRI进一步检查。"
            ),
        ),
        (
            "zh",
            "CT",
            (
                "影像所见：肝脏大小形态正常，肝实质密度均匀，胆囊不大，前列腺不大。双肾未见结石及积水。\n"
                "诊断意见：腹部平扫未见明显异常。"
            ),
        ),
        (
            "es",
            "US",
            (
                "Hallazgos: Hígado de tamaño normal y ecogenicidad homogénea. Vesícula con litiasis. Riñones sin dilatación. Próstata de aspecto normal.\n"
                "Impresión: Colelitiasis."
            ),
        ),
        (
            "en",
            "US",
            (
                "Findings: The liver is normal in echogenicity. A gallstone is present with posterior acoustic shadowing. The right kidney is normal; left kidney has a simple cyst.\n"
                "Impression: Cholelithiasis. Simple left renal cyst."
            ),
        ),
    ],
)
def test_a_whole_sound_report_raises_no_flag_whether_its_language_was_asked_for_or_is_recognised(
    language, modality, text
):
    context = ReadingContext(patient_age="061Y", patient_sex="M", modality=modality)
    for asked in (language, None):
        assert flags(text, context=context, protocol=EVERY_CHECK, language=asked) == set()


def test_no_phantoms_report_raises_a_flag():
    drawn = np.random.default_rng(7)
    for _ in range(300):
        assert flags(report(sample(drawn)), protocol=EVERY_CHECK, language="en") == set()
